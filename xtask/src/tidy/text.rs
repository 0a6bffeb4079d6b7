//! Texts that no tracked file contains.

use super::Finding;
use super::source::{code, mentions, numbered};
use super::tree::{Tree, extension, split};

/// The rules quote what they forbid.
const THE_RULES: &str = "xtask/src/tidy/";

/// Rule `attributes`: lints are expected with a reason, tests are not put to sleep.
pub fn attributes(tree: &Tree, findings: &mut Vec<Finding>) {
    for (path, text) in tree.rust("").filter(|(path, _)| !path.starts_with(THE_RULES)) {
        for (line, code) in code(text) {
            let mut report = |sentence: &str| {
                let sentence = sentence.to_owned();
                findings.push(Finding { path: path.into(), line, rule: "attributes", sentence });
            };
            if code.contains("#[allow(") || code.contains("#![allow(") {
                report("a lint is allowed; write #[expect(lint, reason = \"...\")]");
            }
            if code.contains("#[ignore]") {
                report("a test is ignored; long tests are targets behind the feature `long`");
            }
        }
    }
}

/// Rule `unfinished`: what is here is done.
pub fn unfinished(tree: &Tree, findings: &mut Vec<Finding>) {
    each_line(tree, findings, "unfinished", |_, line| {
        if let Some(mark) = ["TODO", "FIXME", "XXX"].iter().find(|mark| mentions(line, mark)) {
            return Some(format!("`{mark}`; do it, or open an issue and leave no mark"));
        }
        let call = ["todo!", "unimplemented!"].iter().find(|call| line.contains(*call))?;
        Some(format!("`{call}`; return an error that says what is missing"))
    });
}

/// Rule `machines`: no path of the machine that somebody worked on.
pub fn machines(tree: &Tree, findings: &mut Vec<Finding>) {
    each_line(tree, findings, "machines", |path, line| {
        let homes = ["/home/", "/root/", "/Users/", "/work/"];
        let temporary = (extension(path) == "rs").then_some("/tmp/");
        let found = homes.into_iter().chain(temporary).find(|home| begins_a_path(line, home))?;
        Some(format!(
            "`{found}` is a path of one machine; paths are relative or come in, tests use tempfile"
        ))
    });
}

/// A path begins after a space, a quote or a sign, not in the middle of `data/work/`.
fn begins_a_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let inside = |c: char| c.is_alphanumeric() || "_-./}>~".contains(c);
        !line[..at].ends_with(inside)
    })
}

/// Hosts that everybody can reach, or that are nobody's.
const PUBLIC_HOSTS: &[&str] = &[
    "0.0.0.0",
    "127.0.0.1",
    "[::1]",
    "arxiv.org",
    "crates.io",
    "creativecommons.org",
    "doc.rust-lang.org",
    "docs.rs",
    "download.pytorch.org",
    "example.com",
    "github.com",
    "localhost",
    "nexte.st",
    "numpy.org",
    "opensource.org",
    "pypi.org",
    "pytorch.org",
    "rustup.rs",
    "spdx.org",
    "sqlite.org",
    "storage.googleapis.com",
    "www.googleapis.com",
    "www.sqlite.org",
    "www.w3.org",
];
/// Reserved for examples and tests. Source: RFC 2606.
const RESERVED_ENDINGS: &[&str] = &[".example", ".example.com", ".invalid", ".test"];

/// Rule `hosts`: addresses name public or reserved hosts; crates come from crates.io.
pub fn hosts(tree: &Tree, findings: &mut Vec<Finding>) {
    each_line(tree, findings, "hosts", |path, line| {
        if path == ".cargo/config.toml" {
            let elsewhere = ["[source", "[registries", "[registry"];
            if elsewhere.iter().any(|table| line.starts_with(table)) {
                return Some("another registry; crates come from crates.io".to_owned());
            }
        }
        let host = addressed_hosts(line).find(|host| {
            let public = PUBLIC_HOSTS.contains(host);
            !public && !RESERVED_ENDINGS.iter().any(|ending| host.ends_with(ending))
        })?;
        Some(format!("`{host}` is not a known public host; add it to PUBLIC_HOSTS if it is one"))
    });
}

/// Schemes of addresses that name a bucket or a folder, and no host.
const WITHOUT_HOST: [&str; 4] = ["s3", "gs", "az", "file"];

/// Hosts of the addresses in a line; a host that is filled in at run time is none.
fn addressed_hosts(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("://").filter_map(|(at, sign)| {
        let scheme = line[..at].rsplit(|c: char| !c.is_ascii_alphanumeric()).next()?;
        if WITHOUT_HOST.iter().any(|known| known.eq_ignore_ascii_case(scheme)) {
            return None;
        }
        let rest = &line[at + sign.len()..];
        let whole = rest.split(|c: char| c.is_whitespace() || "/\"'`<>(),;\\{$?#".contains(c));
        let authority = whole.into_iter().next()?;
        let host = authority.rsplit('@').next()?;
        let host = match host.find(']') {
            Some(end) if host.starts_with('[') => &host[..=end],
            _ => host.split(':').next()?,
        };
        (!host.is_empty()).then_some(host.trim_end_matches('.'))
    })
}

/// Rule `conflicts`: no half of a merge.
pub fn conflicts(tree: &Tree, findings: &mut Vec<Finding>) {
    each_line(tree, findings, "conflicts", |_, line| {
        let marks = ["<<<<<<< ", "||||||| ", ">>>>>>> "];
        let mark = marks.iter().find(|mark| line.starts_with(*mark))?.trim_end();
        Some(format!("`{mark}` is left of a merge; resolve it"))
    });
    for (path, _) in tree.iter().filter(|(path, _)| path.ends_with(".snap.new")) {
        let sentence = "a snapshot nobody has accepted; run cargo insta review".to_owned();
        findings.push(Finding { path: path.to_owned(), line: 0, rule: "conflicts", sentence });
    }
}

/// Rule `links`: what a document points to inside the repository is there.
pub fn links(tree: &Tree, findings: &mut Vec<Finding>) {
    each_line(tree, findings, "links", |path, line| {
        if extension(path) != "md" {
            return None;
        }
        let target = line.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        let dead =
            target.filter(|target| !target.is_empty() && !target.contains(':')).find(|target| {
                let place = resolve(split(path).0, target);
                tree.text(&place).is_none() && tree.below(&format!("{place}/")).next().is_none()
            })?;
        Some(format!("`{dead}` is not in the repository; link to what is there"))
    });
}

/// `../b/c` seen from the folder `a` is `b/c`.
fn resolve(folder: &str, target: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Test data is quoted from elsewhere and is not ours to word.
fn each_line(
    tree: &Tree,
    findings: &mut Vec<Finding>,
    rule: &'static str,
    wrong: impl Fn(&str, &str) -> Option<String>,
) {
    let ours = |path: &str| !path.starts_with("testdata/") && !path.starts_with(THE_RULES);
    let files = tree.iter().filter(|(path, _)| ours(path) && split(path).1 != "Cargo.lock");
    let lock = tree.iter().filter(|(path, _)| rule == "hosts" && *path == "Cargo.lock");
    for (path, file) in files.chain(lock) {
        for (line, text) in numbered(&file.text) {
            if let Some(sentence) = wrong(path, text) {
                findings.push(Finding { path: path.to_owned(), line, rule, sentence });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::says;
    use super::*;

    #[test]
    fn lints_and_tests_are_not_muted() {
        let text = "#![allow(dead_code)]\n#[ignore]\n// #[allow(x)]\n#[ignore = \"why\"]\n";
        assert_eq!(
            says(attributes, &[("crates/a/src/lib.rs", text)]),
            [
                "crates/a/src/lib.rs:1: a lint is allowed; write #[expect(lint, reason = \"...\")] [attributes]",
                "crates/a/src/lib.rs:2: a test is ignored; long tests are targets behind the feature `long` [attributes]",
            ]
        );
    }

    #[test]
    fn marks_of_unfinished_work_are_found_in_any_file() {
        let files = [
            ("README.md", "A TODO list\nTODOS\n"),
            ("crates/a/src/lib.rs", "// FIXME\ntodo!()\nlet todo = 1;\n"),
            ("testdata/a.txt", "TODO\n"),
        ];
        assert_eq!(
            says(unfinished, &files),
            [
                "README.md:1: `TODO`; do it, or open an issue and leave no mark [unfinished]",
                "crates/a/src/lib.rs:1: `FIXME`; do it, or open an issue and leave no mark [unfinished]",
                "crates/a/src/lib.rs:2: `todo!`; return an error that says what is missing [unfinished]",
            ]
        );
    }

    #[test]
    fn paths_of_a_machine_are_told_from_paths_in_a_folder() {
        let check = |path, line, expected| {
            assert_eq!(says(machines, &[(path, line)]).len(), expected, "{path} {line}");
        };
        check("a.rs", "open(\"/home/me/x\")", 1);
        check("a.md", "see /root/.cargo", 1);
        check("a.rs", "Path::new(\"/tmp/x\")", 1);
        check("a.md", "--data /tmp/x", 0);
        check("a.md", "`<data>/work/<job>/`, ringrift-data/work/1, ./work/, ~/work/", 0);
        check("a.rs", "format!(\"{data}/work/{job}\")", 0);
    }

    #[test]
    fn an_address_names_a_public_host_or_one_filled_in() {
        let check = |line, expected: &[&str]| {
            assert_eq!(addressed_hosts(line).collect::<Vec<_>>(), expected, "{line}");
        };
        check("a http://127.0.0.1:8790/health, https://docs.rs.", &["127.0.0.1", "docs.rs"]);
        check("ssh://git@forge.corp:22/x http://[::1]:1/", &["forge.corp", "[::1]"]);
        check("format!(\"http://{address}/ready\") http://$HOST/", &[]);
        check("s3://bucket/prefix \"S3://bucket\" gs://bucket az://bucket file://mnt/far", &[]);

        let files = [
            (".cargo/config.toml", "[source.mirror]\n"),
            ("Cargo.lock", "source = \"registry+https://mirror.corp/index\"\n"),
            ("README.md", "https://github.com/a/b https://node.test/\n"),
        ];
        assert_eq!(
            says(hosts, &files),
            [
                ".cargo/config.toml:1: another registry; crates come from crates.io [hosts]",
                "Cargo.lock:1: `mirror.corp` is not a known public host; add it to PUBLIC_HOSTS if it is one [hosts]",
            ]
        );
    }

    #[test]
    fn a_document_links_to_what_is_there() {
        let text =
            "[a](b.md#c) [d](../crates/depot) [e](#here) [f](https://docs.rs/g)\n[h](../gone.md)\n";
        let files =
            [("docs/a.md", text), ("docs/b.md", ""), ("crates/depot/src/lib.rs", "// [x](y)\n")];
        assert_eq!(
            says(links, &files),
            ["docs/a.md:2: `../gone.md` is not in the repository; link to what is there [links]"]
        );
    }

    #[test]
    fn what_a_merge_or_a_snapshot_run_left_is_found() {
        let files = [
            ("a.rs", "<<<<<<< ours\n=======\n>>>>>>> theirs\n"),
            ("b.md", "Title\n=======\n"),
            ("crates/a/src/c.snap.new", ""),
        ];
        assert_eq!(
            says(conflicts, &files),
            [
                "a.rs:1: `<<<<<<<` is left of a merge; resolve it [conflicts]",
                "a.rs:3: `>>>>>>>` is left of a merge; resolve it [conflicts]",
                "crates/a/src/c.snap.new:1: a snapshot nobody has accepted; run cargo insta review [conflicts]",
            ]
        );
    }
}
