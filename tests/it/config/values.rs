//! Broken values: not TOML, unknown, of the wrong type, out of range.

use portcullis::config::Level;

use super::expect;

#[test]
fn what_is_not_toml_is_told_with_its_place() {
    expect(
        Level::Error,
        &[
            (
                "unknown_name = «alert»\n",
                "unknown_name",
                "put it in quotes",
            ),
            (
                "unknown_name =«»\n[log]\n",
                "unknown_name",
                "write one after the `=`",
            ),
            (
                "unknown_name = \"alert«»\n[log]\n",
                "unknown_name",
                "a string is \"text\"",
            ),
            (
                "[log]\nformat = \"text\"\n«format» = \"json\"\n",
                "format",
                "keep one of the two",
            ),
            (
                "[routes.vm]\nhost = \"a\"\n[routes.«vm»]\nupstream = \"a:1\"\n",
                "vm",
                "keep one of the two",
            ),
            (
                "unknown_name = \"\\«»q\"\n",
                "unknown_name",
                "in 'text' a backslash is only a backslash",
            ),
        ],
    );
}

#[test]
fn an_unknown_key_is_refused_with_the_one_that_was_meant() {
    expect(
        Level::Error,
        &[
            ("«lisen» = [\":8443\"]\n", "lisen", "did you mean `listen`?"),
            ("«colour» = true\n", "colour", "known here: listen, admin"),
            (
                "[limits]\n«idleTimeout» = \"1h\"\n",
                "idleTimeout",
                "did you mean `idle_timeout`?",
            ),
            (
                "[limits]\nkeepalive = { «counts» = 3 }\n",
                "counts",
                "did you mean `count`?",
            ),
            (
                "[tls.options.a]\n«min-version» = \"1.3\"\n",
                "min-version",
                "did you mean `min_version`?",
            ),
            ("[tls]\n«option» = 1\n", "option", "did you mean `options`?"),
            (
                "[log]\n«level» = \"debug\"\n",
                "level",
                "known here: format",
            ),
            (
                "[routes.vm]\n«hots» = \"a\"\nupstream = \"10.0.0.5:22\"\n",
                "hots",
                "did you mean `host`?",
            ),
            (
                "[upstreams.a]\nendpoints = [{ address = \"10.0.0.5:1\", «wieght» = 1 }]\n",
                "wieght",
                "did you mean `weight`?",
            ),
            (
                "[[certificates]]\ndirectory = \"certificates\"\n«\"a b\"» = 1\n",
                "\"a b\"",
                "known here: directory",
            ),
        ],
    );
}

#[test]
fn a_value_of_the_wrong_type_is_told_what_was_expected() {
    expect(
        Level::Error,
        &[
            (
                "listen = «\"[::]:8443\"»\n",
                "listen",
                "put it in brackets: [\"[::]:8443\"]",
            ),
            (
                "listen = [«8443»]\n",
                "listen[0]",
                "put it in quotes: \"8443\"",
            ),
            ("admin = «9443»\n", "admin", "an address or false"),
            (
                "admin = «true»\n",
                "admin = true",
                "leave `admin` out for 127.0.0.1:9443",
            ),
            (
                "admin = \"unix:/a\"\ninsecure_admin = «\"no\"»\n",
                "insecure_admin",
                "without quotes",
            ),
            (
                "[tls.options.a]\nmin_version = «1.2»\n",
                "tls.options.a.min_version",
                "put it in quotes: \"1.2\"",
            ),
            (
                "[limits]\ndial_timeout = «5»\n",
                "limits.dial_timeout",
                "write \"5s\"",
            ),
            (
                "[limits]\nmax_hello = «65536»\n",
                "limits.max_hello",
                "write \"65536B\"",
            ),
            (
                "[limits]\ndial_attempts = «\"2\"»\n",
                "limits.dial_attempts",
                "without quotes",
            ),
            ("routes = «[]»\n", "routes", "as in `[routes]`"),
            (
                "[routes]\nvm = «\"10.0.0.5:22\"»\n",
                "routes.vm",
                "as in `[routes.vm]`",
            ),
            (
                "[upstreams.a]\naddress = \"a:1\"\ntls = «\"yes\"»\n",
                "upstreams.a.tls",
                "true, false or a table",
            ),
            (
                "[limits]\ndial_attempts = «99999999999999999999»\n",
                "limits.dial_attempts",
                "a smaller number",
            ),
        ],
    );
}

#[test]
fn a_value_out_of_range_or_unknown_is_told_what_may_stand_there() {
    expect(
        Level::Error,
        &[
            (
                "unknown_name = «\"alrt\"»\n",
                "unknown_name",
                "did you mean \"alert\"?",
            ),
            (
                "[log]\nformat = «\"xml\"»\n",
                "log.format",
                "auto, text, json",
            ),
            ("[log]\naccess = «\"off\"»\n", "log.access", "true or false"),
            (
                "[limits]\nhandshake_timeout = «\"0s\"»\n",
                "limits.handshake_timeout",
                "100ms to 10m",
            ),
            (
                "[limits]\nidle_timeout = «\"never\"»\n",
                "limits.idle_timeout",
                "or \"off\"",
            ),
            (
                "[limits]\ndrain_timeout = «\"5 minutes\"»\n",
                "limits.drain_timeout",
                "such as \"10s\"",
            ),
            (
                "[limits]\nmax_hello = «\"1MiB\"»\n",
                "limits.max_hello",
                "4KiB to 64KiB",
            ),
            (
                "[limits]\nmax_hello = «\"64KB\"»\n",
                "limits.max_hello",
                "KiB",
            ),
            (
                "[limits]\ndial_attempts = «0»\n",
                "limits.dial_attempts",
                "from 1 to 10",
            ),
            (
                "[limits]\nlifetime = { max = «\"forever\"» }\n",
                "limits.lifetime.max",
                "or \"off\"",
            ),
            (
                "[limits]\nlifetime = { max = \"8h\", enforce = «\"dry\"» }\n",
                "limits.lifetime.enforce",
                "\"dry-run\" to count only",
            ),
            (
                "[limits.connections]\nmax = «\"off\"»\n",
                "limits.connections.max",
                "or \"auto\"",
            ),
            (
                "[limits.connections]\nmax = «0»\n",
                "limits.connections.max",
                "from 1 to 10000000",
            ),
            (
                "[limits]\nper_source = «\"100\"»\n",
                "limits.per_source",
                "without quotes, or \"off\"",
            ),
            (
                "[limits.handshakes]\nmax = 10\nenforce = «false»\n",
                "limits.handshakes.enforce",
                "write true, or \"dry-run\"",
            ),
            (
                "[limits.accept_rate]\nper_second = 10\nburst = «0»\n",
                "limits.accept_rate.burst",
                "from 1 to 1000000",
            ),
            (
                "[limits.accept_rate]\n«max» = 10\n",
                "max",
                "known here: per_second, burst, enforce",
            ),
            (
                "[limits.keepalive]\ncount = «1000»\n",
                "limits.keepalive.count",
                "from 1 to 127",
            ),
        ],
    );
}
