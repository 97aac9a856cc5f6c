//! The real program as a gateway: started, watched, and its records after its end.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::authority::Authority;
use crate::peers;
use crate::support::Child;

/// A gateway in a process of its own, with its addresses.
pub(crate) struct Program {
    pub(crate) child: Child,
    pub(crate) listener: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Program {
    /// Starts it on free ports with these tables, which must have `admin` on TCP and the log in JSON.
    pub(crate) fn start(authority: &Authority, tables: &str) -> Self {
        Self::start_with(authority, tables, &[])
    }

    /// Starts it so with these variables in its environment, and none of Consul's that are not among them.
    pub(crate) fn start_with(
        authority: &Authority,
        tables: &str,
        variables: &[(&str, String)],
    ) -> Self {
        let command = command(authority, "127.0.0.1:0".parse().unwrap(), tables, variables);
        Self::of(Child::spawn(&command))
    }

    /// Starts it with this socket handed over, as systemd does (sd_listen_fds(3)), and its address as `listen`.
    pub(crate) fn start_on(authority: &Authority, tables: &str, socket: &TcpListener) -> Self {
        let command = command(authority, socket.local_addr().unwrap(), tables, &[]);
        let socket = socket.try_clone().unwrap();
        Self::of(Child::spawn_with(&handed(&command, 1), socket.into()))
    }

    fn of(child: Child) -> Self {
        let address = |message: &str| {
            child.wait_for(message, |line| {
                let line: Value = serde_json::from_str(line).ok()?;
                let address = line["address"]
                    .as_str()
                    .filter(|_| line["message"] == message);
                address?.parse().ok()
            })
        };
        Self {
            listener: address("listening"),
            admin: address("admin interface"),
            child,
        }
    }

    /// How long it has used a processor, in the system's ticks (proc(5): `utime` and `stime`, usually 10 ms each).
    pub(crate) fn ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let fields: Vec<&str> = fields.split(' ').collect();
        [11, 12]
            .map(|at: usize| fields[at].parse::<u64>().unwrap())
            .iter()
            .sum()
    }

    /// The records it has written, after its end, which must be a good one.
    pub(crate) fn records(self) -> Vec<Value> {
        let output = self.child.finish();
        assert!(output.status.success(), "{:?}", output.status);
        let lines = String::from_utf8(output.stdout).unwrap();
        let records = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        records.collect()
    }
}

/// The program with this configuration.
pub(crate) fn command(
    authority: &Authority,
    listen: SocketAddr,
    tables: &str,
    variables: &[(&str, String)],
) -> Command {
    let config = authority.write(
        "portcullis.toml",
        &format!("listen = [\"{listen}\"]\n{tables}"),
    );
    let program = Path::new(env!("CARGO_BIN_EXE_portcullis"));
    let mut command = peers::unconfigured(program, "CONSUL_");
    command.envs(variables.iter().cloned());
    command.arg("serve").arg("--config").arg(config);
    command
}

/// The same command, whose stdin becomes a socket that was handed over so often.
pub(crate) fn handed(command: &Command, times: usize) -> Command {
    let sockets: String = (3..3 + times).map(|at| format!(" {at}<&0")).collect();
    let script = format!(
        "exec{sockets} </dev/null; export LISTEN_FDS={times} LISTEN_PID=$$; exec \"$0\" \"$@\""
    );
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &script])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}
