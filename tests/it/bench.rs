//! What `tools/bench` makes of figures; measuring them is its own business.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Two rounds: a ratio is of the figures of one round, and of two such the middle is shown. Bulk was measured once.
const FIGURES: &str = r#"{
  "date": "2026-01-02", "commit": "v1.2.3", "congestion_control": "reno",
  "machine": {"cpu": "A & B", "cpus": 2, "kernel": "6.1", "system": "Debian"},
  "versions": {"envoy": "1.40.0 with BoringSSL"},
  "options": {"secs": 2.0, "idle": 2000},
  "subjects": ["portcullis", "splice", "haproxy", "envoy"],
  "rounds": [
    {"terminate-connection": {
       "portcullis": {"cpu_us_per_connection": 100, "per_second": 9000, "foreign": 0.0},
       "haproxy": {"cpu_us_per_connection": 250, "per_second": 4000, "foreign": 0.0},
       "envoy": {"cpu_us_per_connection": 200, "per_second": 5000, "foreign": 0.1}},
     "pass-connection": {
       "portcullis": {"cpu_us_per_connection": 104, "per_second": 9000, "foreign": 0.0},
       "splice": {"cpu_us_per_connection": 100, "per_second": 9500, "foreign": 0.0}},
     "terminate-bulk-1": {
       "portcullis": {"cpu_s_per_gb": 0.5, "gbit_per_second": 9, "foreign": 0.5},
       "envoy": {"cpu_s_per_gb": 1.0, "gbit_per_second": 5, "foreign": 0.5}},
     "terminate-idle": {"portcullis": {"kib_per_connection": 6.5}}},
    {"terminate-connection": {
       "portcullis": {"cpu_us_per_connection": 120, "per_second": 8000, "foreign": 0.0},
       "haproxy": {"cpu_us_per_connection": 350, "per_second": 3000, "foreign": 0.0},
       "envoy": {"cpu_us_per_connection": 200, "per_second": 5000, "foreign": 0.1}},
     "pass-connection": {
       "portcullis": {"cpu_us_per_connection": 104, "per_second": 9000, "foreign": 0.0},
       "splice": {"cpu_us_per_connection": 100, "per_second": 9500, "foreign": 0.0}},
     "terminate-idle": {"portcullis": {"kib_per_connection": 6.5}}}
  ]
}"#;

#[test]
fn a_row_has_the_median_of_each_subject_and_says_whether_its_goal_is_met() {
    let said = told(FIGURES, &[]);
    let row = line(&said, "terminate: a connection ");
    assert_eq!(
        cells(row),
        [
            "terminate: a connection",
            "CPU µs",
            "110",
            "–",
            "300",
            "200",
            "0.55 of envoy, ≤ 0.62 ✓"
        ]
    );
    let row = line(&said, "pass: a connection");
    assert!(row.contains("1.04 of splice, ≤ 1.00 ✗"), "{row}");
    // Others had the machine: that says neither.
    let row = line(&said, "terminate: bulk, 1 connection");
    assert!(row.contains("0.50 of envoy, ≤ 0.70 ?"), "{row}");
    let row = line(&said, "terminate: an idle connection");
    assert!(row.contains("≤ 7 KiB ✓"), "{row}");
    assert!(!said.contains("mesh"), "{said}");
    assert!(said.contains("- envoy: 1.40.0 with BoringSSL"), "{said}");
}

#[test]
fn two_builds_differ_where_every_round_says_so_and_nothing_disturbed_them() {
    let said = told(
        r#"{
          "date": "2026-01-02", "commit": "v1.2.3", "congestion_control": "reno",
          "machine": {"cpu": "A", "cpus": 2, "kernel": "6.1", "system": "Debian"},
          "versions": {}, "options": {"secs": 0.5, "idle": 1000}, "subjects": ["base", "portcullis"],
          "rounds": [
            {"terminate-bulk-1": {"base": {"cpu_s_per_gb": 1.0}, "portcullis": {"cpu_s_per_gb": 0.8, "foreign": 0.0}},
             "mesh-bulk-1": {"base": {"cpu_s_per_gb": 1.0}, "portcullis": {"cpu_s_per_gb": 1.1}},
             "pass-bulk-1": {"base": {"cpu_s_per_gb": 1.0}, "portcullis": {"cpu_s_per_gb": 1.1}},
             "mesh-connection": {"base": {"cpu_us_per_connection": 100}, "portcullis": {"cpu_us_per_connection": 80}},
             "pass-idle": {"base": {"kib_per_connection": 10.0}, "portcullis": {"kib_per_connection": 5.0}},
             "pass-bulk-16": {"base": {"cpu_s_per_gb": 1.0}, "portcullis": {"cpu_s_per_gb": 0.6, "foreign": 0.5}}},
            {"terminate-bulk-1": {"base": {"cpu_s_per_gb": 1.0}, "portcullis": {"cpu_s_per_gb": 0.9, "foreign": 0.0}},
             "mesh-bulk-1": {"base": {"cpu_s_per_gb": 1.0}, "portcullis": {"cpu_s_per_gb": 1.3}},
             "pass-bulk-1": {"base": {"cpu_s_per_gb": 1.0}, "portcullis": {"cpu_s_per_gb": 0.9}},
             "pass-bulk-16": {"base": {"cpu_s_per_gb": 1.0}, "portcullis": {"cpu_s_per_gb": 0.8, "foreign": 0.5}}},
            {"terminate-bulk-1": {"base": {"cpu_s_per_gb": 1.0}, "portcullis": {"cpu_s_per_gb": 0.85, "foreign": 0.0}},
             "mesh-bulk-1": {"base": {"cpu_s_per_gb": 1.0}, "portcullis": {"cpu_s_per_gb": 1.2}},
             "pass-bulk-1": {"base": {"cpu_s_per_gb": 1.0}, "portcullis": {"cpu_s_per_gb": 1.0}},
             "pass-bulk-16": {"base": {"cpu_s_per_gb": 1.0}, "portcullis": {"cpu_s_per_gb": 0.7, "foreign": 0.5}}}]
        }"#,
        &[],
    );
    let ends = |name| cells(line(&said, name))[4..].to_vec();
    assert_eq!(
        ends("terminate: bulk, 1 "),
        ["0.85", "0.80–0.90", "0%", "cheaper"]
    );
    assert_eq!(ends("mesh: bulk, 1 "), ["1.20", "1.10–1.30", "", "dearer"]);
    assert_eq!(ends("pass: bulk, 1 "), ["1.00", "0.90–1.10", "", ""]);
    assert_eq!(
        ends("pass: bulk, 16 "),
        ["0.70", "0.60–0.80", "50%", "disturbed"]
    );
    assert_eq!(
        ends("mesh: a connection"),
        ["0.80", "0.80–0.80", "", "too few rounds"]
    );
    assert_eq!(ends("pass: an idle"), ["0.50", "0.50–0.50", "", "cheaper"]);
}

#[test]
fn the_plot_is_xml_with_a_bar_for_every_figure_that_has_something_to_be_compared_with() {
    let folder = tempfile::tempdir().unwrap();
    let plot = folder.path().join("plot.svg");
    told(FIGURES, &["--plot", plot.to_str().unwrap()]);
    let bars = "import sys, xml.dom.minidom as xml\n\
                bars = xml.parse(sys.argv[1]).getElementsByTagName('rect')\n\
                print(*sorted(bar.getAttribute('class') for bar in bars))";
    let mut read = Command::new("python3");
    let done = read.args(["-c", bars]).arg(&plot).output().unwrap();
    // One of each kind that is not ours stands in the legend; nobody's idle connections but ours were measured.
    assert_eq!(
        String::from_utf8_lossy(&done.stdout).trim(),
        "other other other other ours ours page plain"
    );
}

#[test]
fn a_wish_that_makes_no_sense_is_refused() {
    for (wish, why) in [
        (["attack", "--quick"], "takes only --rounds and --secs"),
        (["client", "--quick"], "takes only --rounds"),
        (["client", "--secs=1"], "takes no --secs"),
        (["--only", "nonsense"], "no row's name contains `nonsense`"),
        (["--subjects", "relay,sniproxy"], "there is no `sniproxy`"),
        (["--rounds", "0"], "invalid positive number value: '0'"),
        (["--base", "HEAD"], "--base is what --quick compares with"),
    ] {
        let done = bench(&wish);
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(2), "{said}");
        assert!(said.contains(why), "{said}");
    }
}

fn told(figures: &str, more: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("figures.json");
    fs::write(&file, figures).unwrap();
    let done = bench(&[&["--from", file.to_str().unwrap()], more].concat());
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    String::from_utf8(done.stdout).unwrap()
}

fn bench(arguments: &[&str]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/bench");
    Command::new(script).args(arguments).output().unwrap()
}

fn line<'a>(said: &'a str, name: &str) -> &'a str {
    let begin = format!("| {name}");
    let mut found = said.lines().filter(|line| line.starts_with(&begin));
    found.next().unwrap()
}

fn cells(line: &str) -> Vec<&str> {
    line.trim_matches('|').split('|').map(str::trim).collect()
}
