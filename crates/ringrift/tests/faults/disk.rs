//! A full disk: a small file system of its own, in a mount namespace of its own.

use std::{path::Path, process::Command, time::Duration};

use crate::manager::{Manager, reported, ringrift, wait_for};

/// Set in the process that runs inside the namespace: the folder to mount on.
const INSIDE: &str = "FAULTS_DISK_INSIDE";

#[test]
fn a_full_disk_stops_production_loses_nothing_and_is_got_over() {
    if let Some(mount) = std::env::var_os(INSIDE) {
        return inside(Path::new(&mount));
    }
    let mount = tempfile::tempdir().unwrap();
    // `-r` maps the caller to root inside, so that no privilege is needed; both namespaces vanish
    // with the process.
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "--"])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "disk::a_full_disk_stops_production_loses_nothing_and_is_got_over",
            "--nocapture",
        ])
        .env(INSIDE, mount.path())
        .status()
        .expect("start unshare (Debian package util-linux)");
    assert!(status.success(), "inside the namespace: {status}");
}

fn inside(mount: &Path) {
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=48m", "tmpfs"])
        .arg(mount)
        .status()
        .expect("start mount (Debian package mount)");
    assert!(mounted.success(), "mount a tmpfs: {mounted}");
    let data = mount.join("data");
    let mut manager = Manager::up(&data, &[]);
    wait_for("the first games", Duration::from_mins(2), || {
        (reported(&data).len() >= 2).then_some(())
    });

    // Somebody else fills the file system to its last block.
    let filler = mount.join("filler");
    fill(&filler);
    let why = wait_for("the loop to say why it stands still", Duration::from_mins(1), || {
        let why = ringrift(&["why", "hex8_2p"], &data);
        let text = String::from_utf8_lossy(&why.stdout).into_owned();
        text.contains("free").then_some(text)
    });
    eprintln!("why: {why}");
    wait_for("status to say it", Duration::from_mins(1), || {
        let status = ringrift(&["status"], &data);
        String::from_utf8_lossy(&status.stdout).contains("degraded - ").then_some(())
    });
    wait_for("the last workers to end", Duration::from_mins(1), || {
        manager.workers().is_empty().then_some(())
    });
    let before = reported(&data);
    std::thread::sleep(Duration::from_secs(15));
    assert!(manager.workers().is_empty(), "it plays on with a full disk");
    assert_eq!(reported(&data), before, "it commits on with a full disk");
    assert!(manager.ended().is_none(), "a full disk ended the manager");

    fs_err::remove_file(&filler).unwrap();
    wait_for("the loop to go on", Duration::from_mins(2), || {
        (reported(&data).len() >= before.len() + 2).then_some(())
    });
    let after = reported(&data);
    assert!(
        before.iter().all(|(batch, games)| after.get(batch) == Some(games)),
        "a batch was lost"
    );
    let status = ringrift(&["status", "--json"], &data);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["summary"]["failed"], 0, "a daemon gave up over a full disk");
    assert!(manager.stop().success());
    let verify = ringrift(&["verify"], &data);
    assert!(verify.status.success(), "verify: {}", String::from_utf8_lossy(&verify.stdout));
}

/// Writes until no byte is left.
fn fill(path: &Path) {
    use std::io::Write as _;
    let mut file = fs_err::File::create(path).unwrap();
    for size in [1 << 16, 1 << 12, 1 << 8, 1] {
        let block = vec![0x5a_u8; size];
        while file.write_all(&block).is_ok() {}
    }
}
