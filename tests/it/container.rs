//! The image of `deploy/container`, as far as it can be made without what makes images.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::peers;
use crate::support::{Child, run};

fn tree() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The instructions of a Containerfile, each with what stands behind it; lines that end in `\` go on.
fn instructions() -> Vec<(String, String)> {
    let text = fs::read_to_string(tree().join("deploy/container/Containerfile")).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let lines: Vec<&str> = lines.collect();
    let whole = lines.join("\n").replace("\\\n", "");
    let instructions = whole.lines().filter_map(|line| {
        let (name, rest) = line.split_once(' ')?;
        Some((name.to_owned(), rest.trim().to_owned()))
    });
    instructions.collect()
}

/// The instructions of the stage that begins so.
fn stage(from: &str) -> Vec<(String, String)> {
    let mut rest = instructions().into_iter();
    rest.find(|(name, what)| name == "FROM" && what.starts_with(from))
        .unwrap();
    rest.take_while(|(name, _)| name != "FROM").collect()
}

fn of(stage: &[(String, String)], name: &str) -> Vec<String> {
    let those = stage.iter().filter(|(instruction, _)| instruction == name);
    those.map(|(_, what)| what.clone()).collect()
}

#[test]
fn the_image_holds_one_program_its_manual_and_cas_and_its_user_is_a_number_that_is_not_root() {
    let image = stage("scratch");
    let user = of(&image, "USER");
    let ids: Vec<u32> = user[0].split(':').map(|id| id.parse().unwrap()).collect();
    assert!(ids.len() == 2 && !ids.contains(&0), "{user:?}");
    // The exec form: the other wants a shell.
    let entry: Vec<String> = serde_json::from_str(&of(&image, "ENTRYPOINT")[0]).unwrap();
    assert_eq!(entry, ["/portcullis"]);
    let command: Vec<String> = serde_json::from_str(&of(&image, "CMD")[0]).unwrap();
    assert_eq!(command[0], "serve");
    let copied = of(&image, "COPY");
    let targets: Vec<&str> = copied
        .iter()
        .map(|copy| copy.rsplit(' ').next().unwrap())
        .collect();
    // The first of the places where openssl-probe, and so we, look for the system's CAs on Debian.
    assert_eq!(
        targets,
        [
            "/etc/ssl/certs/ca-certificates.crt",
            "/portcullis",
            "/usr/share"
        ]
    );
    assert!(of(&image, "RUN").is_empty() && of(&image, "ADD").is_empty());
}

#[test]
fn what_the_image_is_built_from_is_there() {
    let build = stage("docker.io/library/rust");
    for copy in of(&build, "COPY") {
        let mut files: Vec<&str> = copy.split(' ').collect();
        files.pop();
        for file in files {
            assert!(tree().join(file).exists(), "{file}");
        }
    }
    let rust = instructions()[0].1.clone();
    let version = rust.split_once("rust:").unwrap().1;
    let minor = |text: &str| -> u32 { text.split('.').nth(1).unwrap().parse().unwrap() };
    let wanted = fs::read_to_string(tree().join("Cargo.toml")).unwrap();
    let wanted = wanted.split_once("rust-version = \"").unwrap().1;
    let wanted = wanted.split('"').next().unwrap();
    assert!(minor(version.split('-').next().unwrap()) >= minor(wanted));
}

/// The command that builds the image's program, and the one that puts into the root of the image what belongs there.
fn steps(root: &Path) -> (String, String) {
    let commands = of(&stage("docker.io/library/rust"), "RUN").pop().unwrap();
    let (build, install) = commands.split_once("&&").unwrap();
    let install = install.replace("/image/", &format!("{}/", root.display()));
    (build.to_owned(), install)
}

#[test]
fn the_manual_and_the_completions_stand_where_programs_look_for_them() {
    let image = tempfile::tempdir().unwrap();
    let (_, install) = steps(image.path());
    let built = "\"target/$(uname -m)-unknown-linux-musl/dist/portcullis\"";
    assert!(install.contains(built), "{install}");
    let install = install.replace(built, env!("CARGO_BIN_EXE_portcullis"));
    let installed = run(Command::new("sh").args(["-ec", &install]), b"");
    assert!(installed.status.success(), "{installed:?}");
    let read = |name: &str| fs::read_to_string(image.path().join("usr/share").join(name)).unwrap();
    for page in ["portcullis", "portcullis-connect", "portcullis-serve"] {
        let text = read(&format!("man/man1/{page}.1"));
        assert!(text.contains(&format!(".TH {page} 1")), "{text}");
    }
    let bash = read("bash-completion/completions/portcullis");
    assert!(bash.contains("complete -F _portcullis"), "{bash}");
    let zsh = read("zsh/site-functions/_portcullis");
    assert!(zsh.starts_with("#compdef portcullis"), "{zsh}");
    let fish = read("fish/vendor_completions.d/portcullis.fish");
    assert!(fish.contains("complete -c portcullis"), "{fish}");
}

/// Runs the very command of the Containerfile here, then the program in a root that has nothing but what the image has.
#[test]
fn the_program_of_the_image_serves_in_a_root_without_anything_else() {
    if !peers::long() || peers::require("musl-gcc", "musl-gcc").is_none() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        return peers::skip("only root can change the root");
    }
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let sysroot = run(Command::new("rustc").args(["--print", "sysroot"]), b"").stdout;
    let sysroot = PathBuf::from(String::from_utf8(sysroot).unwrap().trim());
    if !sysroot
        .join("lib/rustlib")
        .join(&target)
        .join("lib")
        .exists()
    {
        return peers::skip(&format!("no std (get it with: rustup target add {target})"));
    }
    let image = tempfile::tempdir().unwrap();
    let root = image.path();
    let (build, install) = steps(root);
    // It takes minutes, longer than a test waits for a program.
    let mut cargo = Command::new("sh");
    cargo.args(["-c", &build]).current_dir(tree());
    let built = cargo.env_remove("CARGO_TARGET_DIR").status().unwrap();
    assert!(built.success());

    fs::set_permissions(root, PermissionsExt::from_mode(0o755)).unwrap();
    let installed = run(
        Command::new("sh")
            .args(["-c", &install])
            .current_dir(tree()),
        b"",
    );
    assert!(installed.status.success(), "{installed:?}");
    let config = root.join("etc/portcullis");
    fs::create_dir_all(&config).unwrap();
    let text = "listen = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nlog.format = \"json\"\n";
    fs::write(config.join("portcullis.toml"), text).unwrap();

    let image = stage("scratch");
    let [user, group] = of(&image, "USER")[0]
        .split(':')
        .map(str::to_owned)
        .collect::<Vec<_>>()
        .try_into()
        .unwrap();
    let mut command = Command::new("unshare");
    command.arg(format!("--root={}", root.display()));
    command.args(["--setuid", &user, "--setgid", &group, "--"]);
    command.args::<Vec<String>, _>(serde_json::from_str(&of(&image, "ENTRYPOINT")[0]).unwrap());
    command.args::<Vec<String>, _>(serde_json::from_str(&of(&image, "CMD")[0]).unwrap());
    let gateway = Child::spawn(&command);
    for message in ["the sandbox is whole", "listening", "admin interface"] {
        gateway.wait_for(message, |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["message"].as_str()?.starts_with(message)).then_some(())
        });
    }
    gateway.signal("TERM");
    assert!(gateway.finish().status.success());
}
