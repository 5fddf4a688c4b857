//! Who may depend on whom: the table of ARCHITECTURE.md, held against `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Crate, the crates of this workspace it may depend on, and the heavy dependencies that only it may name.
const EDGES: [(&str, &[&str], &[&str]); 7] = [
    ("search", &[], &[]),
    ("kernels", &[], &["cudarc"]),
    ("operators", &["search", "kernels"], &["tch"]),
    ("evaluator", &["search", "operators"], &["tch", "tokenizers"]),
    ("profiles", &["search", "kernels"], &["nvml-wrapper"]),
    ("db", &["search"], &["sqlx", "tokio"]),
    ("tui", &["search", "db"], &["ratatui", "clap", "tokio"]),
];

/// Crates that must build and start without libtorch and CUDA.
const LIGHT: [&str; 3] = ["search", "db", "tui"];

/// What a cargo command prints about this workspace, without touching the network or the lock file.
fn cargo(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .args(["--offline", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs this test, so cargo is there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn text(value: &Value) -> &str {
    value.as_str().expect("cargo metadata's schema")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("cargo metadata's schema")
}

#[test]
fn crates_depend_only_on_whom_they_may() {
    let metadata: Value =
        serde_json::from_slice(&cargo(&["metadata", "--format-version=1", "--no-deps"]))
            .expect("cargo metadata prints JSON");
    let packages: BTreeMap<&str, &Value> =
        list(&metadata["packages"]).iter().map(|p| (text(&p["name"]), p)).collect();
    let known: BTreeSet<&str> = EDGES.iter().map(|(name, ..)| *name).collect();
    assert_eq!(
        known,
        packages.keys().copied().collect(),
        "every crate of the workspace has a row in EDGES"
    );

    for (name, ours, heavy) in EDGES {
        for dependency in list(&packages[name]["dependencies"]) {
            if dependency["kind"] == "dev" {
                continue; // tests may reach across
            }
            let to = text(&dependency["name"]);
            if known.contains(to) {
                assert!(ours.contains(&to), "{name} must not depend on {to}");
            }
            let heavy_elsewhere =
                EDGES.iter().any(|(_, _, heavy)| heavy.contains(&to)) && !heavy.contains(&to);
            assert!(!heavy_elsewhere, "{name} must not depend on {to}");
        }
    }
}

#[test]
fn light_crates_reach_no_libtorch_and_no_cuda() {
    for light in LIGHT {
        // Everything below it, its tests' needs included.
        let tree = cargo(&["tree", "--package", light, "--edges=all", "--prefix=none"]);
        let tree = String::from_utf8(tree).expect("cargo prints UTF-8");
        assert!(tree.starts_with(light), "cargo tree begins with its root: {tree}");
        for forbidden in ["torch-sys", "tch", "cudarc"] {
            let reached = tree.lines().any(|line| line.split(' ').next() == Some(forbidden));
            assert!(!reached, "{light} reaches {forbidden}");
        }
    }
}
