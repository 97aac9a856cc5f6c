//! `portcullis ssh-config` and `probe`, judged by a real ssh.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::authority::Authority;
use crate::gateway::Gateway;
use crate::peers;
use crate::support::run;
use crate::vm::{Vm, end};

mod file;
mod kept;

const NAME: &str = "ssh.vm.example.test";
const DOMAIN: &str = "*.vm.example.test";

/// The program under this path.
pub(crate) fn program(path: &Path) -> PathBuf {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let ours = Path::new(env!("CARGO_BIN_EXE_portcullis"));
    // Elsewhere than on its own disk it is copied.
    if fs::hard_link(ours, path).is_err() {
        fs::copy(ours, path).unwrap();
    }
    path.to_owned()
}

/// `portcullis ssh-config` for one domain.
fn ssh_config(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.env_remove("PORTCULLIS_GATEWAY");
    command
        .args(["ssh-config", "--domain", DOMAIN])
        .args(arguments);
    command
}

fn ours() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_portcullis"))
}

/// What it says, when it succeeds.
#[track_caller]
fn said(command: &Command) -> String {
    let done = run(command, b"");
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout).unwrap()
}

/// Checks that it failed so, with two lines.
#[track_caller]
fn failed(command: &Command, code: i32, says: &str, hints: &str) {
    let done = run(command, b"");
    let told = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(code), "{told}");
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(lines.len(), 2, "{told}");
    assert!(
        lines[0].starts_with("portcullis: ") && lines[0].contains(says),
        "{told}"
    );
    assert!(
        lines[1].starts_with("hint: ") && lines[1].contains(hints),
        "{told}"
    );
}

/// What ssh makes of a file for a host, by keyword.
fn meant(ssh: &Path, file: &Path, host: &str, keyword: &str) -> Option<String> {
    let mut command = Command::new(ssh);
    let told = said(command.arg("-G").arg("-F").arg(file).arg(host));
    told.lines().find_map(|line| {
        let (word, value) = line.split_once(' ')?;
        (word == keyword).then(|| value.to_owned())
    })
}

#[test]
fn ssh_reads_the_block_as_it_is_meant_and_what_stands_behind_it_as_before() {
    let Some(ssh) = peers::require("ssh", "ssh") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config");
    let own =
        "ServerAliveInterval 60\nHost *.vm.example.test\n    ServerAliveInterval 61\n    User me\n";
    fs::write(&file, own).unwrap();
    let at = file.to_str().unwrap();
    let gateway = ["--gateway", "gate.example.test", "--install", "--file", at];
    said(&ssh_config(ours(), &gateway));
    let host = |keyword| meant(&ssh, &file, NAME, keyword);
    let ours = ours().display();
    let command = format!("{ours} connect --gateway gate.example.test:8443 -- '%h' '%p'");
    assert_eq!(host("proxycommand"), Some(command));
    assert_eq!(host("serveraliveinterval").as_deref(), Some("15"));
    assert_eq!(host("serveralivecountmax").as_deref(), Some("3"));
    assert_eq!(host("controlmaster").as_deref(), Some("false"));
    // It would be one name for all machines.
    assert_eq!(host("hostkeyalias"), None);
    assert_eq!(host("user").as_deref(), Some("me"));
    let other = |keyword| meant(&ssh, &file, "elsewhere.test", keyword);
    assert_eq!(other("proxycommand"), None);
    assert_eq!(other("serveraliveinterval").as_deref(), Some("60"));

    let one = [
        "ssh-config",
        "--domain",
        NAME,
        "--control-master",
        "--file",
        at,
        "--install",
    ];
    let mut one_name = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    said(one_name.args(one).args(["--gateway", "near.test:1"]));
    assert_eq!(host("hostkeyalias").as_deref(), Some(NAME));
    assert_eq!(host("controlmaster").as_deref(), Some("auto"));
    assert_eq!(host("controlpersist").as_deref(), Some("600"));
    assert!(host("proxycommand").unwrap().contains("near.test:1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_runs_by_the_installed_block_whatever_the_paths_hold() {
    let Some(mut scene) = Scene::start().await else {
        return;
    };
    let folder = scene
        .authority
        .folder()
        .join("it's 100% \"my\" $(own) tools\\");
    let program = program(&folder.join("portcullis"));
    fs::copy(
        scene.authority.folder().join("ca.pem"),
        folder.join("the ca.pem"),
    )
    .unwrap();
    let mut install = scene.install(&program, &[]);
    install.current_dir(&folder).args(["--ca", "the ca.pem"]);
    said(&install);
    scene.a_command_runs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_away_takes_the_gateway_where_the_machine_does_not_answer() {
    let Some(mut scene) = Scene::start().await else {
        return;
    };
    let folder = scene.authority.folder().join("100% $(my) tools");
    let program = program(&folder.join("portcullis"));
    let ca = scene
        .authority
        .folder()
        .join("ca.pem")
        .display()
        .to_string();
    // Nobody knows the address of the name: the gateway has to.
    said(&scene.install(&program, &["--only-away", "--ca", &ca]));
    scene.a_command_runs().await;

    // Here it answers itself, and the gateway, which does not know this name, is not asked.
    let near = scene.vm.address;
    let mut install = Command::new(&program);
    install.args([
        "ssh-config",
        "--domain",
        "localhost",
        "--only-away",
        "--install",
    ]);
    install
        .args(["--gateway", "gate.invalid", "--file"])
        .arg(&scene.file);
    said(&install);
    let known = fs::read_to_string(scene.authority.folder().join("known_hosts")).unwrap();
    let known = known.replace(NAME, &format!("[localhost]:{}", near.port()));
    scene.authority.write("known_hosts", &known);
    let mut ssh = scene.vm.ssh_by(&scene.file);
    ssh.args(["-p", &near.port().to_string(), "localhost", "echo here"]);
    let done = end(ssh, b"").await;
    assert_eq!(done.stdout, b"here\n", "{done:?}");
}

#[test]
fn a_second_install_changes_nothing_and_remove_leaves_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let own = "# mine\nHost other\n    User me\n";
    fs::write(at("dotfile"), own).unwrap();
    fs::set_permissions(at("dotfile"), Permissions::from_mode(0o640)).unwrap();
    symlink("dotfile", at("config")).unwrap();
    let config = at("config").display().to_string();
    let run = |arguments: &[&str]| {
        said(&ssh_config(
            ours(),
            &[&["--file", &config], arguments].concat(),
        ))
    };
    let listing = || {
        let entries = fs::read_dir(folder.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };

    let installed = run(&["--gateway", "gate", "--install"]);
    let backup = at("dotfile.portcullis-backup");
    assert!(
        installed.starts_with("installed in ") && installed.contains("dotfile.portcullis-backup"),
        "{installed}"
    );
    assert_eq!(fs::read_to_string(&backup).unwrap(), own);
    let (once, names) = (fs::read_to_string(at("dotfile")).unwrap(), listing());
    assert!(
        once.starts_with("# >>> portcullis: *.vm.example.test\n") && once.ends_with(own),
        "{once}"
    );
    assert!(run(&["--gateway", "gate", "--install"]).contains("has it already"));
    assert_eq!(
        (fs::read_to_string(at("dotfile")).unwrap(), listing()),
        (once.clone(), names)
    );

    run(&["--gateway", "other", "--install"]);
    assert_eq!(fs::read_to_string(&backup).unwrap(), own);
    assert_eq!(
        fs::read_to_string(at("dotfile.portcullis-backup-2")).unwrap(),
        once
    );
    assert!(run(&["--remove"]).starts_with("removed from "));
    assert_eq!(fs::read_to_string(at("dotfile")).unwrap(), own);
    assert!(run(&["--remove"]).contains("nothing to remove"));
    assert!(fs::symlink_metadata(at("config")).unwrap().is_symlink());
    let mode = fs::metadata(at("dotfile")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
}

#[test]
fn a_gateway_that_the_file_knows_is_left_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("portcullis/client.toml");
    fs::create_dir(file.parent().unwrap()).unwrap();
    fs::write(&file, "[domains.\"*.example.test\"]\ngateway = \"gate\"\n").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let mut command = ssh_config(ours(), &[]);
    let block = said(command.env("XDG_CONFIG_HOME", folder.path()));
    let line = format!(
        "    ProxyCommand {} connect -- '%h' '%p'\n",
        ours().display()
    );
    assert!(block.contains(&line), "{block}");
    fs::write(&file, "[domains.\"*.example.test\"]\ngatway = \"gate\"\n").unwrap();
    let done = run(&command, b"");
    let told = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(2), "{told}");
    assert!(told.contains("did you mean `gateway`?"), "{told}");
}

#[test]
fn a_home_without_ssh_gets_its_folder_and_one_that_cannot_be_written_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let install = |program: &str, home: &Path| {
        let mut command = Command::new(program);
        command.env("HOME", home);
        command
    };
    let arguments = [
        "ssh-config",
        "--domain",
        DOMAIN,
        "--gateway",
        "gate",
        "--install",
    ];
    let mut first = install(env!("CARGO_BIN_EXE_portcullis"), folder.path());
    said(first.args(arguments));
    let ssh = folder.path().join(".ssh");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&ssh), mode(&ssh.join("config"))), (0o700, 0o600));

    // Root may write anywhere: another user tries.
    for (path, mode) in [
        (folder.path(), 0o755),
        (&ssh, 0o555),
        (&ssh.join("config"), 0o644),
    ] {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
    let copy = program(&folder.path().join("portcullis"));
    let mut nobody = match rustix::process::geteuid().is_root() {
        true => install("setpriv", folder.path()),
        false => install("env", folder.path()),
    };
    if rustix::process::geteuid().is_root() {
        nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
    }
    nobody
        .arg(copy)
        .args(arguments)
        .args(["--domain", "other.test"]);
    failed(&nobody, 1, "ermission denied", "print the block");
    assert_eq!(fs::read_dir(&ssh).unwrap().count(), 1);
}

#[test]
fn what_cannot_be_done_is_told_in_two_lines_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config");
    let at = file.to_str().unwrap();
    let damaged = "Host a\n# >>> portcullis: *.vm.example.test\nHost b\n";
    fs::write(&file, damaged).unwrap();
    for arguments in [["--gateway", "gate", "--install"].as_slice(), &["--remove"]] {
        let arguments = [&["--file", at], arguments].concat();
        failed(
            &ssh_config(ours(), &arguments),
            1,
            "config: line 2: the block for *.vm.example.test begins here",
            "by hand",
        );
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), damaged);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);

    let broken = folder.path().join("a\nb");
    fs::create_dir(&broken).unwrap();
    let mut command = ssh_config(ours(), &["--gateway", "gate", "--ca", "ca.pem"]);
    failed(
        command.current_dir(&broken),
        2,
        "holds a line break",
        "plain name",
    );
    let odd = program(&folder.path().join("it's/portcullis"));
    let away = ["--gateway", "gate", "--only-away"];
    failed(
        &ssh_config(&odd, &away),
        2,
        "cannot stand in a `Match exec`",
        "plain name",
    );
    let mut nowhere = ssh_config(ours(), &["--file", at, "--install"]);
    nowhere.env("XDG_CONFIG_HOME", folder.path());
    failed(
        &nowhere,
        2,
        "no gateway is named for *.vm.example.test",
        "[domains.\"*.vm.example.test\"]",
    );
    let mut command = Command::new(ours());
    command.args(["ssh-config", "--gateway", "gate", "--domain", "a.*.test"]);
    assert_eq!(run(&command, b"").status.code(), Some(2));
}

#[test]
fn a_probe_tells_by_its_exit_code_alone_whether_somebody_answers() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let open = listener.local_addr().unwrap().to_string();
    let probe = |target: &str| {
        let mut command = Command::new(ours());
        run(
            command.args(["probe", "--timeout", "300ms", "--", target]),
            b"",
        )
    };
    let done = probe(&open);
    assert_eq!(
        (done.status.code(), done.stdout, done.stderr),
        (Some(0), vec![], vec![])
    );
    drop(listener);
    for target in [open.as_str(), "vm.invalid:22"] {
        let done = probe(target);
        assert_eq!(
            (done.status.code(), done.stdout, done.stderr),
            (Some(1), vec![], vec![]),
            "{target}"
        );
    }
    // The queue of this one is full: it answers no SYN.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(
        &"127.0.0.1:0"
            .parse::<std::net::SocketAddr>()
            .unwrap()
            .into(),
    )
    .unwrap();
    full.listen(0).unwrap();
    let silent = full.local_addr().unwrap().as_socket().unwrap();
    let _taken = std::net::TcpStream::connect(silent).unwrap();
    assert_eq!(probe(&silent.to_string()).status.code(), Some(1));
    assert_eq!(probe("-x").status.code(), Some(2));
    assert_eq!(probe("vm:ssh").status.code(), Some(2));
}

/// A machine behind a gateway, and a configuration of ssh that says nothing yet.
struct Scene {
    authority: Authority,
    gateway: Gateway,
    vm: Vm,
    file: PathBuf,
}

impl Scene {
    async fn start() -> Option<Self> {
        let authority = Authority::new();
        let vm = Vm::start(NAME, &authority).await?;
        authority.issue_files("edge", &[NAME]);
        let tables = format!(
            "certificates = [{{ chain = \"edge.pem\", key = \"edge.key\" }}]\n\
             [routes.vm]\nhost = \"{NAME}\"\nupstream = \"{}\"",
            vm.address
        );
        let gateway = Gateway::start(&authority, &tables).await;
        Some(Self {
            file: authority.write("ssh_config", "# mine\nCompression yes\n"),
            authority,
            gateway,
            vm,
        })
    }

    fn install(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = ssh_config(program, &["--install", "--file"]);
        command
            .arg(&self.file)
            .args(["--gateway", &self.gateway.address.to_string()]);
        command.args(arguments);
        command
    }

    async fn a_command_runs(&mut self) {
        let mut ssh = self.vm.ssh_by(&self.file);
        ssh.args([NAME, "cat; exit 3"]);
        let done = end(ssh, b"one\ntwo").await;
        assert_eq!(done.status.code(), Some(3), "{done:?}");
        assert_eq!(done.stdout, b"one\ntwo");
        let record = self.gateway.ended().await;
        assert_eq!(record["route"], "vm", "{record}");
    }
}
