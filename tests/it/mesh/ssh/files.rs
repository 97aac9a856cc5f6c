//! Files that go both ways: by rsync, by git, by sftp, and as a stream in both directions at once.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use super::{NAME, POLL, Proxy, Scene, peak};
use crate::peers;
use crate::support::{Child, PATIENCE, wait_until};
use crate::vm::{FILE, assert_same, end};

/// Much more than everything on the way could hold.
const GIBIBYTE: u64 = 1 << 30;

#[tokio::test(flavor = "multi_thread")]
async fn rsync_copies_a_tree_both_ways_and_then_only_what_has_changed() {
    let Some(rsync) = peers::require("rsync", "rsync") else {
        return;
    };
    for proxy in [Proxy::BuiltIn, Proxy::Envoy] {
        let Some(mut scene) = Scene::start(proxy, &[]).await else {
            return;
        };
        let [here, ..] = scene.vm.files(FILE);
        let tree = scene.path("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::rename(here, tree.join("large")).unwrap();
        fs::write(tree.join("a/it's a name"), "small").unwrap();
        symlink("../large", tree.join("a/link")).unwrap();
        let shell = format!("ssh -F {}", scene.config.display());
        let copy = async |from: &str, to: &str| {
            let mut command = Command::new(&rsync);
            command.args(["-a", "--delete", "-e", &shell, from, to]);
            succeeds(command).await;
        };
        let path = |name: &str| format!("{}/", scene.path(name).display());
        let (tree_, there, back) = (path("tree"), path("there"), path("back"));
        let remote = format!("{NAME}:{there}");
        copy(&tree_, &remote).await;
        copy(&remote, &back).await;
        same_trees(&tree, Path::new(&back)).await;

        let mut large = File::options()
            .write(true)
            .open(tree.join("large"))
            .unwrap();
        large.seek(SeekFrom::Start(FILE / 2)).unwrap();
        large.write_all(b"changed").unwrap();
        fs::remove_file(tree.join("a/link")).unwrap();
        copy(&tree_, &remote).await;
        same_trees(&tree, Path::new(&there)).await;

        let up = scene.closed().await["bytes_up"].as_u64().unwrap();
        let down = scene.closed().await["bytes_down"].as_u64().unwrap();
        let again = scene.closed().await["bytes_up"].as_u64().unwrap();
        assert!(up > FILE && down > FILE && again < FILE / 16, "{again}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn git_clones_and_pushes() {
    let Some(git) = peers::require("git", "git") else {
        return;
    };
    for proxy in [Proxy::BuiltIn, Proxy::Envoy] {
        let Some(mut scene) = Scene::start(proxy, &[]).await else {
            return;
        };
        let [here, ..] = scene.vm.files(FILE / 4);
        let git = async |arguments: &[&str]| {
            let mut command = Command::new(&git);
            for (name, value) in [
                (
                    "GIT_SSH_COMMAND",
                    format!("ssh -F {}", scene.config.display()),
                ),
                ("GIT_CONFIG_GLOBAL", "/dev/null".to_owned()),
                ("GIT_CONFIG_NOSYSTEM", "1".to_owned()),
            ] {
                command.env(name, value);
            }
            command.current_dir(scene.mesh.authority.folder());
            command.args(["-c", "user.name=me", "-c", "user.email=me@example.test"]);
            command.args(arguments);
            succeeds(command).await
        };
        let remote = format!("{NAME}:{}", scene.path("there.git").display());
        git(&["init", "--quiet", "--bare", "-b", "main", "there.git"]).await;
        git(&["init", "--quiet", "-b", "main", "work"]).await;
        fs::rename(&here, scene.path("work/large")).unwrap();
        git(&["-C", "work", "add", "large"]).await;
        git(&["-C", "work", "commit", "--quiet", "-m", "A large file"]).await;
        git(&["-C", "work", "push", "--quiet", &remote, "main"]).await;
        git(&["clone", "--quiet", &remote, "clone"]).await;
        assert_same(&scene.path("work/large"), &scene.path("clone/large"));
        git(&["-C", "clone", "mv", "large", "renamed"]).await;
        git(&["-C", "clone", "commit", "--quiet", "-m", "A better name"]).await;
        git(&["-C", "clone", "push", "--quiet"]).await;
        let there = git(&["-C", "there.git", "rev-parse", "main"]).await;
        assert_eq!(there, git(&["-C", "clone", "rev-parse", "HEAD"]).await);
        git(&["-C", "there.git", "fsck", "--full", "--strict"]).await;

        let pushed = scene.closed().await;
        assert!(pushed["bytes_up"].as_u64().unwrap() > FILE / 4, "{pushed}");
        let cloned = scene.closed().await;
        assert!(
            cloned["bytes_down"].as_u64().unwrap() > FILE / 4,
            "{cloned}"
        );
        scene.closed().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sftp_and_scp_find_the_way_by_the_installed_block() {
    let Some(mut scene) = Scene::start(Proxy::BuiltIn, &[]).await else {
        return;
    };
    let [here, there, back] = scene.vm.files(FILE / 4);
    let remote = |path: &Path| format!("{NAME}:{}", path.display());
    let mut put = scene.command("scp");
    put.arg("-q").arg(&here).arg(remote(&there));
    succeeds(put).await;
    let mut get = scene.command("sftp");
    get.arg("-q").arg(remote(&there)).arg(&back);
    succeeds(get).await;
    assert_same(&here, &back);
    scene.closed().await;
    scene.closed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_both_ways_at_once_byte_by_byte() {
    for proxy in [Proxy::BuiltIn, Proxy::Envoy] {
        a_stream_goes_both_ways(proxy, FILE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gibibyte_goes_both_ways_at_once_byte_by_byte() {
    if !peers::long() {
        return;
    }
    for proxy in [Proxy::BuiltIn, Proxy::Envoy] {
        a_stream_goes_both_ways(proxy, GIBIBYTE).await;
    }
}

async fn a_stream_goes_both_ways(proxy: Proxy, length: u64) {
    let Some(mut scene) = Scene::start(proxy, &[]).await else {
        return;
    };
    let [here, _, back] = scene.vm.files(length);
    let start = Instant::now();
    let ssh = scene.ssh("cat");
    let mut piped = Command::new("sh");
    piped.args(["-c", "exec \"$@\" <\"$HERE\" >\"$BACK\"", "sh"]);
    piped.arg(ssh.get_program()).args(ssh.get_args());
    let ssh = Child::spawn(piped.env("HERE", &here).env("BACK", &back));
    wait_until("it has a helper", || !scene.helpers().is_empty());
    let helper = scene.helpers()[0];

    // It may take long, as long as it gets on.
    let (mut most, mut came, mut late) = (0, 0, Instant::now() + PATIENCE);
    while !ssh.has_ended() {
        let now = fs::metadata(&back).unwrap().len();
        if now > came {
            (came, late) = (now, Instant::now() + PATIENCE);
        }
        assert!(Instant::now() < late, "{came} bytes came; {}", ssh.all());
        most = most.max(peak(helper).unwrap_or(0));
        tokio::time::sleep(POLL).await;
    }
    let done = ssh.finish();
    assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
    let took = start.elapsed().as_secs_f64();
    println!("{length} bytes both ways at once in {took:.1} s; connect had {most} KiB at most");
    assert_same(&here, &back);
    let record = scene.closed().await;
    for moved in ["bytes_up", "bytes_down"] {
        assert!(record[moved].as_u64().unwrap() > length, "{record}");
    }
    // What it holds does not grow with what it moves.
    assert!(most < 48 * 1024, "{most} KiB");
}

/// What a program says, which must succeed and say nothing on stderr.
async fn succeeds(command: Command) -> Vec<u8> {
    let done = end(command, b"").await;
    assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
    done.stdout
}

async fn same_trees(one: &Path, other: &Path) {
    let mut diff = Command::new("diff");
    diff.args(["-r", "--no-dereference"]).arg(one).arg(other);
    succeeds(diff).await;
}
