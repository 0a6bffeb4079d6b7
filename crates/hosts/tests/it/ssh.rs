//! Commands on other machines: what `ssh` is told, by a program in its place, and a real server.

use std::{
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use hosts::{Limits, Reach, RunError, Ssh};
use tokio::time::{Instant, sleep};

use crate::script;

const LIMITS: Limits = Limits::of(Duration::from_secs(20));

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[tokio::test]
async fn ssh_is_told_exactly_this() {
    let dir = tempfile::tempdir().unwrap();
    let program = script(&dir.path().join("ssh"), "for word; do printf '%s\\n' \"$word\"; done");
    let reach = Reach::Ssh(Ssh::to("runner@gpu-a.example").unwrap().by(program));
    let command = words(&["systemctl", "--user", "restart", "a b", "it's", "$(reboot)"]);
    let output = reach.run(&command, LIMITS).await.unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap().lines().collect::<Vec<_>>(),
        [
            "-T",
            "-o",
            "BatchMode=yes",
            "-o",
            "StrictHostKeyChecking=yes",
            "-o",
            "ConnectTimeout=10",
            "-o",
            "ConnectionAttempts=1",
            "-o",
            "ServerAliveInterval=5",
            "-o",
            "ServerAliveCountMax=3",
            "-o",
            "ClearAllForwardings=yes",
            "-o",
            "ForwardAgent=no",
            "-o",
            "ForwardX11=no",
            "-o",
            "PermitLocalCommand=no",
            "-o",
            "ControlMaster=no",
            "--",
            "runner@gpu-a.example",
            "systemctl --user restart 'a b' \"it's\" '$(reboot)'",
        ]
    );
}

#[tokio::test]
async fn a_machine_that_is_not_reached_is_another_thing_than_a_command_that_fails() {
    let dir = tempfile::tempdir().unwrap();
    let by = |text: &str| {
        let program = script(&dir.path().join("ssh"), text);
        Reach::Ssh(Ssh::to("gpu-a").unwrap().by(program))
    };
    let command = words(&["systemctl", "restart", "x"]);
    let cut = by("echo 'ssh: connect to host gpu-a port 22: No route to host' >&2; exit 255");
    let error = cut.run(&command, LIMITS).await.unwrap_err();
    assert!(matches!(error, RunError::Unreachable { .. }), "{error}");
    assert_eq!(
        error.to_string(),
        "gpu-a cannot be reached: ssh: connect to host gpu-a port 22: No route to host"
    );
    let fails = by("echo 'Unit x not found.' >&2; exit 5");
    let error = fails.run(&command, LIMITS).await.unwrap_err();
    assert_eq!(error.to_string(), "systemctl on gpu-a ended with exit code 5: Unit x not found.");
    let nul = by("exit 0").run(&words(&["a", "\0"]), LIMITS).await.unwrap_err();
    assert!(matches!(nul, RunError::Unquotable { .. }), "{nul}");
    assert!(matches!(by("exit 0").run(&[], LIMITS).await, Err(RunError::Nothing)));
}

#[test]
fn only_a_machine_is_a_destination() {
    for fine in ["gpu-a", "gpu_a.example", "runner@10.0.0.5", "fe80::1%eth0"] {
        assert!(Ssh::to(fine).is_ok(), "{fine}");
    }
    for bad in [
        "",
        "-oProxyCommand=reboot",
        "a@-oProxyCommand=reboot",
        "-a",
        "a b",
        "a;b",
        "a\nb",
        "@host",
        "user@",
        "user:secret@host",
        "a@b@c",
    ] {
        assert!(Ssh::to(bad).is_err(), "{bad}");
    }
}

/// A server on loopback that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn keygen(file: &Path) -> bool {
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(file)
        .stdin(Stdio::null())
        .status();
    made.is_ok_and(|status| status.success())
}

/// Starts one, and gives a way to it; says what is absent if there is none.
#[expect(clippy::print_stdout, reason = "says what is absent")]
async fn server(dir: &Path) -> Option<(Server, Reach)> {
    let absent = |what: &str| {
        println!("absent: {what}, so commands over a real ssh are not tested");
        None
    };
    let program = Path::new("/usr/sbin/sshd");
    if !program.exists() || !keygen(&dir.join("host")) || !keygen(&dir.join("user")) {
        return absent("OpenSSH's sshd and ssh-keygen");
    }
    let port = testkit::port();
    let at = dir.display();
    fs_err::copy(dir.join("user.pub"), dir.join("authorized")).unwrap();
    let settings = format!(
        "ListenAddress 127.0.0.1:{port}\nHostKey {at}/host\nAuthorizedKeysFile {at}/authorized\n\
         PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\n\
         PermitRootLogin prohibit-password\n"
    );
    fs_err::write(dir.join("sshd_config"), settings).unwrap();
    let log = fs_err::File::create(dir.join("log")).unwrap().into_file();
    // Where root has never run one, its folder in /run is absent: then a /run of its own.
    let own = "mount -t tmpfs tmpfs /run && mkdir -m 755 /run/sshd && exec \"$@\"";
    let mut command = if Path::new("/run/sshd").exists() || !rustix::process::geteuid().is_root() {
        Command::new(program)
    } else {
        let mut command = Command::new("unshare");
        command.args(["--mount", "/bin/sh", "-c", own, "sh"]).arg(program);
        command
    };
    command.args(["-D", "-e", "-f"]).arg(dir.join("sshd_config"));
    let started = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
    let mut server = Server(started.unwrap());
    let until = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if server.0.try_wait().unwrap().is_some() || Instant::now() > until {
            let said = fs_err::read_to_string(dir.join("log")).unwrap_or_default();
            return absent(&format!("an sshd that starts here ({})", said.trim()));
        }
        sleep(Duration::from_millis(20)).await;
    }
    let settings = format!(
        "Host *\n  Port {port}\n  IdentityFile {at}/user\n  IdentitiesOnly yes\n  \
         UserKnownHostsFile {at}/known\n  GlobalKnownHostsFile /dev/null\n"
    );
    fs_err::write(dir.join("ssh_config"), settings).unwrap();
    let program = script(&dir.join("ssh"), &format!("exec /usr/bin/ssh -F {at}/ssh_config \"$@\""));
    Some((server, Reach::Ssh(Ssh::to("127.0.0.1").unwrap().by(program))))
}

fn know(dir: &Path, key: &str) {
    let key = fs_err::read_to_string(dir.join(key)).unwrap();
    let port = fs_err::read_to_string(dir.join("ssh_config")).unwrap();
    let port = port.lines().find_map(|line| line.trim().strip_prefix("Port ")).unwrap().to_owned();
    fs_err::write(dir.join("known"), format!("[127.0.0.1]:{port} {key}")).unwrap();
}

#[tokio::test]
async fn a_real_server_runs_the_command_as_it_was_given() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let Some((server, reach)) = server(dir).await else { return };
    let echo = words(&["printf", "%s|", "a b", "$HOME", "it's", "", "*", "a\nb", "!x", "-n"]);

    let unknown = reach.run(&echo, LIMITS).await.unwrap_err();
    assert!(matches!(unknown, RunError::Unreachable { .. }), "{unknown}");
    know(dir, "user.pub");
    let other = reach.run(&echo, LIMITS).await.unwrap_err();
    assert!(matches!(other, RunError::Unreachable { .. }), "another host's key: {other}");

    know(dir, "host.pub");
    let output = reach.run(&echo, LIMITS).await.unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "a b|$HOME|it's||*|a\nb|!x|-n|");
    let fails = reach.run(&words(&["sh", "-c", "echo no >&2; exit 7"]), LIMITS).await;
    assert_eq!(fails.unwrap_err().to_string(), "sh on 127.0.0.1 ended with exit code 7: no");

    let began = Instant::now();
    let hangs = Limits::of(Duration::from_millis(500));
    let late = reach.run(&words(&["sleep", "1000"]), hangs).await.unwrap_err();
    assert!(matches!(late, RunError::Late { .. }), "{late}");
    assert!(began.elapsed() < Duration::from_secs(10));

    fs_err::remove_file(dir.join("user")).unwrap();
    let no_key = reach.run(&echo, LIMITS).await.unwrap_err();
    assert!(no_key.to_string().contains("Permission denied"), "{no_key}");
    drop(server);
    let down = reach.run(&echo, LIMITS).await.unwrap_err();
    assert!(down.to_string().contains("Connection refused"), "{down}");
}
