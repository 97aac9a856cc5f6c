//! `portcullis doctor`: every step told, each failure with its remedy, in words and as JSON.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::process::Command;

use serde_json::Value;

use crate::authority::Authority;
use crate::support::run;

mod client;
mod host;
mod rights;
mod sockets;
mod upstreams;

/// What the command found, as a script reads it.
struct Found {
    document: Value,
    code: i32,
}

impl Found {
    /// Runs the command with `--json`.
    #[track_caller]
    fn by(mut command: Command) -> Self {
        command.arg("--json");
        let done = run(&command, b"");
        let told = String::from_utf8(done.stderr.clone()).unwrap();
        assert_eq!(told, "", "on stderr");
        let document: Value = serde_json::from_slice(&done.stdout).unwrap();
        let code = done.status.code().unwrap();
        assert_eq!(document["code"], code, "{document}");
        assert_eq!(document["ok"], code == 0, "{document}");
        let found = Self { document, code };
        found.has_its_schema();
        found
    }

    /// What a script may rely on, in every document.
    fn has_its_schema(&self) {
        let keys = |value: &Value| -> BTreeSet<String> {
            value.as_object().unwrap().keys().cloned().collect()
        };
        let of = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(
            keys(&self.document),
            of(&["about", "code", "end", "ok", "steps"])
        );
        for step in self.steps() {
            assert_eq!(
                keys(step),
                of(&["detail", "hint", "state", "step", "took_ms"])
            );
            let state = step["state"].as_str().unwrap();
            assert!(["ok", "warn", "fail", "unknown"].contains(&state), "{step}");
            assert!(step["took_ms"].is_null() || step["took_ms"].as_f64().unwrap() >= 0.0);
            let has_hint = step["hint"].is_string();
            assert_eq!(has_hint, ["warn", "fail"].contains(&state), "{step}");
            assert!(step["detail"].is_string(), "{step}");
        }
    }

    fn steps(&self) -> &[Value] {
        self.document["steps"].as_array().unwrap()
    }

    /// The steps in their order, each with its state: `TLS ok`.
    fn course(&self) -> Vec<String> {
        let word = |value: &Value| value.as_str().unwrap().to_owned();
        let mut course: Vec<_> = (self.steps().iter())
            .map(|step| format!("{} {}", word(&step["step"]), word(&step["state"])))
            .collect();
        course.dedup();
        course
    }

    /// Whether a step in this state says this, with this hint.
    #[track_caller]
    fn tells(&self, step: &str, state: &str, says: &str, hints: &str) -> &Self {
        let is_told = |one: &Value| {
            one["step"] == step
                && one["state"] == state
                && one["detail"].as_str().unwrap().contains(says)
                && one["hint"].as_str().unwrap_or_default().contains(hints)
        };
        assert!(
            self.steps().iter().any(is_told),
            "no {step} {state} {says:?} {hints:?}: {:#}",
            self.document
        );
        self
    }

    /// Whether the exit code is this one.
    #[track_caller]
    fn exits(&self, code: i32) -> &Self {
        assert_eq!(self.code, code, "{:#}", self.document);
        self
    }
}

/// A machine, and the files of whoever asks there: a CA in `ca.pem`, a certificate for `*.example.test` in `edge.pem`, its key.
struct Scene {
    authority: Authority,
}

impl Scene {
    fn new() -> Self {
        let authority = Authority::new();
        authority.issue_files("edge", &["*.example.test"]);
        Self { authority }
    }

    /// `portcullis doctor` of a person who has said nothing yet, and has no file of his own.
    fn doctor(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command.arg("doctor");
        command.env("XDG_CONFIG_HOME", self.authority.folder());
        for name in ["PORTCULLIS_GATEWAY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
            command.env_remove(name).env_remove(name.to_lowercase());
        }
        for (name, _) in std::env::vars_os() {
            let known = name.to_string_lossy();
            if known.starts_with("CONSUL_") || known.starts_with("NOMAD_") {
                command.env_remove(name);
            }
        }
        command
    }

    /// The same at a client's end, for this gateway, trusting the CA.
    fn to(&self, gateway: impl ToString, target: &str) -> Command {
        let mut command = self.doctor();
        command.args(["--gateway", &gateway.to_string(), "--ca"]);
        command.arg(self.authority.folder().join("ca.pem"));
        command.arg(target);
        command
    }

    /// The same for a gateway that shall listen there with its certificate, by these tables.
    fn host(&self, listen: impl ToString, tables: &str) -> Command {
        let listen = listen.to_string();
        self.host_as_written(&format!(
            "listen = [\"{listen}\"]\nadmin = false\n\
             certificates = [{{ chain = \"edge.pem\", key = \"edge.key\" }}]\n{tables}"
        ))
    }

    /// The same with a configuration that says everything itself.
    fn host_as_written(&self, text: &str) -> Command {
        let config = self.authority.write("portcullis.toml", text);
        let mut command = self.doctor();
        command.arg("--config").arg(config);
        command
    }
}

/// Any port.
const ANY: &str = "127.0.0.1:0";

/// Where nobody listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}
