//! What it costs to know which routes are hidden, where there are very many.

use super::super::shadows::MOST;
use super::*;

/// How much was looked at for all routes, and how many of them are hidden; `None` if it was more than `most`.
fn cost(table: &Table, most: usize) -> (Option<usize>, usize) {
    let mut shadows = table.shadows();
    shadows.left = most;
    let routes = table.routes();
    let hidden = routes.iter().filter(|route| shadows.of(route).is_some());
    let hidden = hidden.count();
    let cost = most - shadows.left;
    (shadows.is_complete().then_some(cost), hidden)
}

#[test]
fn many_regular_expressions_cost_a_few_looks_each() {
    let regexps = (0..500).map(|n| {
        // Every fifth has the rule of the one before it.
        let n = if n % 5 == 4 { (n - 1, n) } else { (n, n) };
        let rule = format!(r"HostSNIRegexp(`^vm-{}-[a-z]+\.test$`)", n.0);
        route(&format!("r{:04}", n.1), &rule)
    });
    let (cost, hidden) = cost(&table(regexps), 1_000_000);
    assert_eq!(hidden, 100);
    assert!(cost.unwrap() < 500 * 8, "{cost:?}");
}

#[test]
fn thousands_of_names_and_of_routes_for_one_name_cost_a_few_looks_each() {
    let names = (0..3000).map(|n| route(&format!("n{n}"), &format!("HostSNI(`n{n}.test`)")));
    let one = (0..3000).map(|n| {
        let rule = format!(
            "HostSNI(`one.test`) && ClientIP(`10.0.{}.{}`)",
            n / 250,
            n % 250
        );
        route(&format!("o{n}"), &rule)
    });
    let few = [
        route("few", "HostSNIRegexp(`^n[0-9]\\.test`)"),
        route("any", "HostSNI(`*`)"),
    ];
    let (cost, hidden) = cost(&table(names.chain(one).chain(few)), 1_000_000);
    assert_eq!(hidden, 10, "by the regular expression, which is longer");
    assert!(cost.unwrap() < 6000 * 10, "{cost:?}");
}

#[test]
fn names_under_more_regular_expressions_than_are_worth_it_are_not_all_looked_at() {
    let names = (0..200).map(|n| route(&format!("n{n}"), &format!("HostSNI(`n{n}.test`)")));
    let regexps = (0..200).map(|n| {
        route(
            &format!("r{n}"),
            &format!(r"HostSNIRegexp(`^vm-{n}\.test$`)"),
        )
    });
    let table = table(names.chain(regexps));
    assert_eq!(cost(&table, 20_000), (None, 0));
    assert!(cost(&table, 80_000).0.is_some());
}

#[test]
fn a_rule_of_thousands_of_names_that_two_routes_have_is_not_worth_it() {
    let rule: Vec<_> = (0..2000).map(|n| format!("HostSNI(`n{n}.test`)")).collect();
    let rule = rule.join("||");
    let table = table([route("a", &rule), route("b", &rule)]);
    assert_eq!(cost(&table, MOST), (None, 0));
}
