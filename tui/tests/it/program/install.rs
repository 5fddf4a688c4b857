//! `make install`: the programs work in another place, from any folder, with nothing in the environment.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::peers::say;

fn make(target: &str, prefix: &Path, built: &Path) -> Output {
    let mut command = Command::new("make");
    command
        .args(["--no-print-directory", target])
        .arg(format!("PREFIX={}", prefix.display()))
        .arg(format!("BUILT={}", built.display()))
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    command.output().expect("there is a make")
}

#[test]
fn installed_programs_find_each_other_and_libtorch() {
    let built = Path::new(env!("CARGO_BIN_EXE_deltafront")).parent().expect("it lies in a folder");
    if !["deltafront-train", "deltafront-profile"].iter().all(|name| built.join(name).is_file()) {
        return say("skipped: the workers are not built; test the whole workspace");
    }
    let prefix = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("program/installed in here");
    let _ = std::fs::remove_dir_all(&prefix);
    let output = make("install-built", &prefix, built);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("your shell does not look there"), "{said}");
    let program = prefix.join("bin/deltafront");
    let doctor = Command::new(&program)
        .args(["doctor", "--json"])
        .env_clear()
        .env("HOME", &prefix)
        .current_dir("/")
        .output()
        .expect("the program starts");
    let findings: serde_json::Value = serde_json::from_slice(&doctor.stdout).expect("JSON");
    for subject in ["trainer", "profiler"] {
        let of = |finding: &&serde_json::Value| finding["subject"] == subject;
        let found = findings.as_array().and_then(|all| all.iter().find(of)).expect("a finding");
        assert_eq!(found["verdict"], "ok", "{found}");
    }
    assert!(make("uninstall", &prefix, built).status.success());
    assert!(!program.exists());
}
