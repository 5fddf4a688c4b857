//! `deltafront study`.

use serde_json::Value;

use super::harness::{Running, Said, World};

fn study(world: &World, more: &[&str]) -> Said {
    let base = ["study", "placement", "--corpus", "corpus.txt"];
    world.say(&[&base[..], more].concat())
}

#[test]
fn a_study_says_what_came_out_and_is_prolonged_by_seeds() {
    let mut world = World::new("study");
    world.set("FAKE_NOISE", "1");
    let listed = world.say(&["study"]);
    assert!(listed.code == 0 && listed.stdout.contains("placement  –"), "{}", listed.stdout);
    let said = study(&world, &["--seeds", "2", "--page", "pages/placement.md"]);
    assert!(said.code == 1 && said.stderr.contains("no folder pages"), "{}", said.stderr);
    assert_eq!(world.count("evaluations"), 0, "what cannot be written is said before the work");
    let said = study(&world, &["--seeds", "2", "--page", "placement.md"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(world.count("evaluations"), 8);
    let page = world.read("placement.md");
    assert!(page.contains("# Where the one layer of attention stands"), "{page}");
    assert!(page.contains("--seeds 2 --page placement.md"), "{page}");
    assert!(said.stderr.contains("of 3 claims"), "{}", said.stderr);
    // a page that is there is left alone, and what is finished is not done again
    let said = study(&world, &["--page", "placement.md"]);
    assert!(said.code == 1 && said.stderr.contains("--force"), "{}", said.stderr);
    let said = world.say(&["study", "placement", "--json"]);
    assert_eq!((said.code, world.count("evaluations")), (0, 8), "{}", said.stderr);
    let json: Value = serde_json::from_str(&said.stdout).expect("JSON");
    for finding in json["findings"].as_array().expect("a list") {
        assert_eq!(finding["seeds"], 2, "{finding}");
        assert!(finding["mean"].is_number() && finding["reach"].is_number(), "{finding}");
    }
    let told = "echo $DELTAFRONT_CAMPAIGN $DELTAFRONT_STATE >> told";
    let watched = ["--seeds", "4", "--notify", told, "--metrics", "127.0.0.1:0", "--log", "log"];
    let said = study(&world, &watched);
    assert_eq!((said.code, world.count("evaluations")), (0, 16), "{}", said.stderr);
    assert_eq!(world.read("told"), "study-placement finished\n");
    assert!(said.stderr.contains("metrics at http://127.0.0.1:"), "{}", said.stderr);
    assert!(world.read("log").contains("run ends"));
    // the differences are those of the campaign's own trainings
    let json = world.say(&["study", "placement", "--json"]).stdout;
    let json: Value = serde_json::from_str(&json).expect("JSON");
    let mean = |name: &str| {
        let arms = json["arms"].as_array().expect("a list");
        let arm = arms.iter().find(|arm| arm["name"] == name).expect("an arm");
        let values = arm["values"].as_array().expect("a list");
        let value = values.iter().find(|value| value["value"] == "bits_per_byte").expect("judged");
        value["mean"].as_f64().expect("a number")
    };
    for finding in json["findings"].as_array().expect("a list") {
        let difference = mean(finding["of"].as_str().expect("a name")) - mean("first");
        assert!((finding["mean"].as_f64().expect("a number") - difference).abs() < 1e-9);
    }
    assert!(world.say(&["study"]).stdout.contains("placement  finished"));
    assert_eq!(world.say(&["show", "study-placement"]).code, 0);
}

#[test]
fn a_study_goes_on_after_ctrl_c() {
    let mut world = World::new("study_cut");
    world.set("FAKE_TRAINER", "slow 0.1");
    let run = {
        let mut command = world.command(&["study", "placement", "--corpus", "corpus.txt"]);
        command.stdout(std::process::Stdio::null());
        let log = std::fs::File::create(world.folder.join("stderr.txt")).expect("a file");
        Running(command.stderr(log).spawn().expect("the program starts"))
    };
    world.wait_until("it trains", |world| world.count("evaluations") >= 4);
    run.interrupt();
    assert_eq!(run.code(), 130);
    assert!(world.read("stderr.txt").contains("study placement"), "{}", world.read("stderr.txt"));
    world.unset("FAKE_TRAINER");
    let said = world.say(&["study", "placement"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let most = 4 * 5 + 2;
    assert!((20..=most).contains(&world.count("evaluations")), "{}", world.count("evaluations"));
}

#[test]
fn widths_of_a_time_are_found_once() {
    let mut world = World::new("study_timed");
    world.set("FAKE_PROFILER", "widths");
    let said = world.say(&["study", "depth", "--corpus", "corpus.txt", "--seeds", "1", "--json"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stderr.contains("16-layers-as-fast: width"), "{}", said.stderr);
    let json: Value = serde_json::from_str(&said.stdout).expect("JSON");
    let stacks = |json: &Value| {
        let arms = json["arms"].as_array().expect("a list").clone();
        arms.iter().map(|arm| arm["stack"].as_str().expect("text").to_owned()).collect::<Vec<_>>()
    };
    assert!(
        json["findings"].as_array().expect("a list").iter().all(|f| f["verdict"] == "cannot_tell")
    );
    let again = world.say(&["study", "depth", "--seeds", "2", "--json"]);
    assert!(!again.stderr.contains("width"), "{}", again.stderr);
    assert_eq!(stacks(&serde_json::from_str(&again.stdout).expect("JSON")), stacks(&json));
}

#[test]
fn what_a_study_cannot_do_gets_one_clear_message() {
    let world = World::new("study_words");
    let cases = [
        (
            &["study", "nothing"][..],
            "there are ratio, placement, hybrids, nope, gate, turning, memory, depth",
        ),
        (&["study", "gate"], "--corpus PATH"),
        (&["study", "gate", "--corpus", "none.txt"], "none.txt"),
        (&["study", "gate", "--corpus", "corpus.txt", "--tokens", "100"], "less than one step"),
    ];
    for (command, message) in cases {
        let said = world.say(command);
        assert!(said.code == 1 && said.stderr.contains(message), "{command:?}: {}", said.stderr);
    }
    assert_eq!(study(&world, &["--seeds", "1"]).code, 0);
    world.write("other.txt", "another text");
    let said = world.say(&["study", "placement", "--corpus", "other.txt"]);
    assert!(said.code == 1 && said.stderr.contains("began with"), "{}", said.stderr);
    let said = study(&world, &["--tokens", "70000"]);
    assert!(said.code == 1 && said.stderr.contains("not 70000"), "{}", said.stderr);
}
