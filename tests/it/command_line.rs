//! The command line itself: help that fits a screen, completions and manual, names that are none.

use std::fs;
use std::process::{Command, Stdio};

use clap::CommandFactory;
use portcullis::cli::Cli;

use crate::peers;
use crate::support::run;

/// A screen that help has to fit, in columns and lines.
const SCREEN: (usize, usize) = (80, 50);

fn portcullis(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.args(arguments);
    command
}

/// What it prints, when it succeeds.
#[track_caller]
fn printed(command: &Command) -> String {
    let done = run(command, b"");
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout).unwrap()
}

fn commands() -> Vec<String> {
    let cli = Cli::command();
    let commands = cli.get_subcommands();
    commands
        .map(|command| command.get_name().to_owned())
        .collect()
}

#[test]
fn every_help_fits_a_screen() {
    for command in commands() {
        let help = printed(portcullis(&[&command, "--help"]).env("COLUMNS", SCREEN.0.to_string()));
        let lines = help.lines().count();
        assert!(lines <= SCREEN.1, "{command}: {lines} lines\n{help}");
    }
    for command in [
        "connect",
        "doctor",
        "ssh-config",
        "probe",
        "completions",
        "man",
    ] {
        let help = printed(&portcullis(&[command, "--help"]));
        assert!(help.contains("\nExample"), "{help}");
        let wide = help.lines().find(|line| line.chars().count() > 100);
        assert_eq!(wide, None);
    }
}

#[test]
fn what_is_no_terminal_gets_no_colours() {
    for arguments in [["connect", "--help"], ["connect", "--nonsense"]] {
        for no_color in ["", "1"] {
            let done = run(portcullis(&arguments).env("NO_COLOR", no_color), b"");
            let said = [done.stdout, done.stderr].concat();
            assert!(!said.is_empty() && !said.contains(&0x1b), "{arguments:?}");
        }
    }
}

#[test]
fn a_terminal_gets_colours_unless_no_color_says_no() {
    let Some(script) = peers::require("script", "script") else {
        return;
    };
    let help = format!("{} connect --help", env!("CARGO_BIN_EXE_portcullis"));
    let shown = |no_color: &str| {
        let mut command = Command::new(&script);
        command.args(["-qec", &help, "/dev/null"]);
        run(command.env("NO_COLOR", no_color).env("TERM", "xterm"), b"").stdout
    };
    assert!(shown("").contains(&0x1b));
    assert!(!shown("1").contains(&0x1b));
    let doctor = format!(
        "{} doctor --config /nowhere",
        env!("CARGO_BIN_EXE_portcullis")
    );
    let shown = |terminal: &str| {
        let mut command = Command::new(&script);
        command
            .args(["-qec", &doctor, "/dev/null"])
            .env("TERM", terminal);
        run(command.env_remove("NO_COLOR"), b"").stdout
    };
    assert!(shown("xterm").contains(&0x1b));
    assert!(!shown("dumb").contains(&0x1b));
}

#[test]
fn a_host_that_is_no_name_is_refused_in_a_clear_line_before_anything_is_tried() {
    let long = "a".repeat(300);
    for (host, says) in [
        ("a b.example.com", "cannot hold ' '"),
        ("-oProxyCommand=x", "cannot hold '='"),
        ("-vm.example.com", "starts or ends with `-`"),
        ("%h", "cannot hold '%'"),
        (long.as_str(), "is 300 bytes long"),
        ("vm.example.com:22", "write the name without a port"),
        ("ssh://vm.example.com", "without a scheme"),
        ("10.0.0.1", "is an IP address"),
        ("", "the host name is empty"),
        ("v\u{1b}[2Jm", "\\u{1b}[2J"),
    ] {
        let command = portcullis(&["connect", "--gateway", "gate.invalid", "--", host]);
        let done = run(&command, b"");
        let told = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(2), "{host}: {told}");
        let [message, hint] = told.lines().collect::<Vec<_>>()[..] else {
            panic!("{host}: {told}");
        };
        assert!(
            message.starts_with("portcullis: ") && message.contains(says),
            "{host}: {told}"
        );
        assert_eq!(hint, "hint: see portcullis connect --help");
        assert!(message.len() < 400, "{message}");
        assert_eq!(done.stdout, b"");
    }
}

#[test]
fn a_mistake_in_the_command_line_is_one_object_where_failures_are() {
    for (arguments, says) in [
        (&["connect", "--json", "a b"][..], "cannot hold ' '"),
        (&["connect", "--nonsense", "--json"], "'--nonsense'"),
        (&["doctor", "--json", "a b"], "cannot hold ' '"),
    ] {
        let done = run(&portcullis(arguments), b"");
        let told: serde_json::Value = serde_json::from_slice(&done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(2), "{told}");
        assert_eq!(
            (&told["code"], &told["reason"]),
            (&2.into(), &"usage".into())
        );
        assert!(told["error"].as_str().unwrap().contains(says), "{told}");
        assert!(told["hint"].as_str().unwrap().contains("--help"), "{told}");
    }
    // Behind `--` it is a HOST.
    let done = run(&portcullis(&["connect", "--", "--json"]), b"");
    let told = String::from_utf8(done.stderr).unwrap();
    assert!(
        told.starts_with("portcullis: invalid value '--json'"),
        "{told}"
    );
}

#[test]
fn a_doctor_with_a_gateway_and_no_host_asks_whom_to_reach() {
    let flags = ["doctor", "--gateway", "gate.example.com"];
    let done = run(portcullis(&flags).env_remove("PORTCULLIS_CONFIG"), b"");
    assert_eq!(done.status.code(), Some(2));
    let told = String::from_utf8(done.stderr).unwrap();
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(lines[0], "portcullis: whom to reach?");
    assert!(lines[1].starts_with("hint: portcullis doctor "), "{told}");
    let done = run(portcullis(&flags).arg("--json"), b"");
    let told: serde_json::Value = serde_json::from_slice(&done.stderr).unwrap();
    assert_eq!(told["error"], "whom to reach?");
}

#[test]
fn a_variable_that_is_empty_counts_as_not_set() {
    let folder = tempfile::tempdir().unwrap();
    let with = |arguments: &[&str], name: &str| {
        let mut command = portcullis(arguments);
        command.env("XDG_CONFIG_HOME", folder.path());
        let done = run(command.current_dir(folder.path()).env(name, ""), b"");
        String::from_utf8(done.stderr).unwrap()
    };
    let told = with(&["connect", "vm.example.com"], "PORTCULLIS_GATEWAY");
    assert!(
        told.contains("no gateway is named for vm.example.com"),
        "{told}"
    );
    let told = with(&["ssh-config", "--domain", "vm.test"], "PORTCULLIS_GATEWAY");
    assert!(told.contains("no gateway is named"), "{told}");
    let told = with(&["check"], "PORTCULLIS_CONFIG");
    assert!(told.contains("portcullis.toml"), "{told}");
}

#[test]
fn a_shell_completes_the_commands() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = printed(&portcullis(&["completions", shell]));
        for command in commands() {
            assert!(script.contains(&command), "{shell}: {command}");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("completions");
    fs::write(&file, printed(&portcullis(&["completions", "bash"]))).unwrap();
    let mut bash = Command::new("bash");
    bash.args([
        "--norc",
        "-c",
        "source \"$0\"; COMP_WORDS=(portcullis ssh-c); COMP_CWORD=1; _portcullis portcullis ssh-c portcullis; echo \"${COMPREPLY[*]}\"",
    ]);
    assert_eq!(printed(bash.arg(&file)), "ssh-config\n");
    for (shell, check) in [("zsh", "-n"), ("fish", "--no-execute")] {
        fs::write(&file, printed(&portcullis(&["completions", shell]))).unwrap();
        // Where there is no such shell nobody completes in it.
        if let Ok(done) = Command::new(shell).arg(check).arg(&file).output() {
            assert!(done.status.success(), "{shell}: {done:?}");
        }
    }
    let done = run(&portcullis(&["completions", "cmd"]), b"");
    assert_eq!(done.status.code(), Some(2));
}

#[test]
fn the_manual_has_a_page_for_each_command() {
    assert!(printed(&portcullis(&["man"])).contains(".TH portcullis 1"));
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().to_str().unwrap();
    assert_eq!(printed(&portcullis(&["man", "--dir", at])), "");
    for command in commands() {
        let page = folder.path().join(format!("portcullis-{command}.1"));
        let page = fs::read_to_string(page).unwrap();
        assert!(page.contains(".SH SYNOPSIS"), "{page}");
    }
    let connect = fs::read_to_string(folder.path().join("portcullis-connect.1")).unwrap();
    for says in [
        "\\-\\-insecure",
        "\\-\\-pin",
        "PORTCULLIS_GATEWAY",
        "portcullis connect\\fR [OPTIONS] <HOST> [PORT]",
        "\\-\\-passphrase\\-file",
        ".SH \"EXIT CODES\"\n",
        "\n\\& 24 gateway: went silent, or hung up\n",
        "\n\\&ssh \\-o ProxyCommand=\\(aqportcullis connect ",
    ] {
        assert!(connect.contains(says), "{says}\n{connect}");
    }
    let done = run(&portcullis(&["man", "--dir", "/nowhere"]), b"");
    let told = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(1), "{told}");
    assert!(
        told.starts_with("portcullis: cannot write the manual: "),
        "{told}"
    );
}

#[test]
fn a_page_of_the_manual_is_read_line_by_line_on_a_screen() {
    let folder = tempfile::tempdir().unwrap();
    printed(portcullis(&["man", "--dir"]).arg(folder.path()));
    let mut man = Command::new("man");
    man.args(["-P", "cat", "-l"]);
    man.arg(folder.path().join("portcullis-connect.1"));
    // Where there is no such program nobody reads it there.
    let Ok(done) = man.env("MANWIDTH", SCREEN.0.to_string()).output() else {
        return peers::skip("no `man` here");
    };
    let shown = String::from_utf8(done.stdout).unwrap();
    for line in [
        "\n   24 gateway: went silent, or hung up\n",
        "\n  portcullis connect --ca ca.pem --cert me.pem",
        "--passphrase-file <FILE>",
    ] {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
    let wide = shown.lines().find(|line| line.chars().count() > SCREEN.0);
    assert_eq!(wide, None);
}

#[test]
fn an_answer_that_stdout_does_not_take_is_an_error_and_a_reader_that_has_gone_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("portcullis.toml");
    fs::write(&config, "admin = false\nlisten = [\"127.0.0.1:0\"]\n").unwrap();
    let config = config.to_str().unwrap();
    let into = |arguments: &[&str], out: Stdio| {
        let mut command = portcullis(arguments);
        let done = command.stdin(Stdio::null()).stdout(out).output().unwrap();
        (done.status.code(), String::from_utf8(done.stderr).unwrap())
    };
    let mut answers = vec![
        vec!["--version"],
        vec!["connect", "--help"],
        vec!["man"],
        vec!["ssh-config", "--domain", "*.vm.test", "--gateway", "gate"],
        vec!["check", "--config", config],
        vec!["routes", "--dry-run", "--config", config],
        vec!["routes", "--dry-run", "--json", "--config", config],
        vec!["doctor", "--config", config],
        vec!["doctor", "--json", "--config", config],
    ];
    answers.extend(["bash", "zsh", "fish"].map(|shell| vec!["completions", shell]));
    for arguments in answers {
        let full = fs::File::create("/dev/full").unwrap();
        let (code, told) = into(&arguments, full.into());
        assert_eq!(code, Some(1), "{arguments:?}: {told}");
        let line = "portcullis: cannot write to stdout: No space left on device";
        assert!(told.contains(line), "{arguments:?}: {told}");
        assert!(told.contains("\nhint: stdout is where"), "{told}");

        let (gone, pipe) = std::io::pipe().unwrap();
        drop(gone);
        let (code, told) = into(&arguments, pipe.into());
        assert_eq!(code, Some(0), "{arguments:?}: {told}");
        assert!(!told.contains("stdout"), "{told}");
    }
    // Its exit code is all that it says.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let open = listener.local_addr().unwrap().to_string();
    let full = fs::File::create("/dev/full").unwrap();
    let probed = into(&["probe", &open], full.into());
    assert_eq!(probed, (Some(0), String::new()));
}
