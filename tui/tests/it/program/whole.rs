//! Campaigns without trouble.

use std::collections::HashSet;
use std::path::Path;

use db::{Access, Change, Circumstance, Owner, RunEnd, Store};

use super::harness::{EVALUATIONS, World};

#[test]
fn a_campaign_runs_to_its_end() {
    let world = World::new("whole");
    let said = world.say(&["run"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    for word in
        ["full-attention", "gated-deltanet", "bits per byte", "deltafront browse", "deltafront.db"]
    {
        assert!(said.stdout.contains(word), "`{word}` is not in\n{}", said.stdout);
    }
    let candidates = world.candidates();
    assert_eq!(candidates.len(), EVALUATIONS);
    assert!(candidates.iter().all(|(_, state)| state == "done"), "{candidates:?}");
    let different: HashSet<_> = candidates.iter().map(|(text, _)| text).collect();
    assert_eq!(different.len(), EVALUATIONS, "an architecture was evaluated twice");
    assert_eq!(world.count("evaluations"), EVALUATIONS);

    // Front members, references and the first few were timed as a whole, and nobody else.
    let campaign = world.campaign();
    for row in campaign["candidates"].as_array().expect("a list") {
        let is_first = row["number"].as_u64() <= Some(6);
        let wanted = is_first || row["rank"] == 0 || !row["reference"].is_null();
        assert_eq!(!row["decode_whole"].is_null(), wanted, "candidate {}", row["number"]);
    }
    assert_eq!(campaign["state"], "finished");
    assert_eq!(campaign["workers"][0]["worker"], "fake-profile 1.0 (fake-1)");
}

#[test]
fn a_campaign_of_tasks_alone_needs_no_text_and_keeps_to_that() {
    let mut world = World::new("tasks_alone");
    let data = "[data]\ncorpus = \"corpus.txt\"\n";
    world.edit(data, "[[tasks]]\nkind = \"parity\"\ntokens = 65_536\n");
    let said = world.say(&["run"]);
    assert_eq!(said.code, 1);
    assert!(said.stderr.contains("`bits_per_byte` is measured on text"), "{}", said.stderr);
    world.edit("[search]", "[search]\nobjectives = [\"parity_error\", \"decode_us\"]");
    world.set("FAKE_VALUE", "parity_error");
    let said = world.say(&["run"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let configuration: serde_json::Value =
        serde_json::from_str(&world.read("configuration")).expect("a line of JSON");
    assert!(configuration["data"].is_null(), "{configuration}");
    assert_eq!(configuration["tasks"][0]["kind"], "parity");
    assert_eq!(world.campaign()["tokens"], 65_536);
    let said = world.say(&["show", "small"]);
    assert!(said.stdout.contains("parity_error"), "{}", said.stdout);
    let said = world.say(&["compare", "small", "1", "--tokens", "4096"]);
    assert_eq!(said.code, 1);
    assert!(said.stderr.contains("has no text"), "{}", said.stderr);

    // Goes on as it is, and not with a text beside the task.
    world.edit("evaluations = 8", "evaluations = 9");
    let said = world.say(&["run"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stderr.contains("goes on: 8 of 9 done"), "{}", said.stderr);
    world.edit("[training]", &format!("{data}[training]"));
    let said = world.say(&["run"]);
    assert_eq!(said.code, 1);
    assert!(said.stderr.contains("data.corpus: nothing → \"corpus.txt\""), "{}", said.stderr);
}

#[test]
fn the_same_seed_gives_the_same_campaign_also_with_bars() {
    let [one, two] = ["same_one", "same_two"].map(World::new);
    assert_eq!(one.say(&["run"]).code, 0);
    assert_eq!(two.say(&["run", "--plain"]).code, 0);
    assert_eq!(one.candidates(), two.candidates());
}

#[test]
fn trainers_work_at_once() {
    let mut world = World::new("at_once");
    world.edit("evaluations = 8", "evaluations = 8\nconcurrency = 3");
    world.set("FAKE_TRAINER", "slow 0.3");
    let said = world.say(&["run"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(world.candidates().len(), EVALUATIONS);
    let order = world.read("order");
    let at_once = order.lines().take_while(|line| *line == "begin").count();
    assert_eq!(at_once, 3, "{order}");
}

#[test]
fn a_finished_campaign_is_not_done_again_and_can_be_prolonged() {
    let world = World::new("prolonged");
    assert_eq!(world.say(&["run"]).code, 0);
    let before = world.candidates();
    let said = world.say(&["run"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stderr.contains("raise `search.evaluations` above 8"), "{}", said.stderr);
    assert_eq!(world.count("evaluations"), EVALUATIONS);
    world.edit("evaluations = 8", "evaluations = 11");
    let said = world.say(&["run"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let after = world.candidates();
    assert_eq!(after.len(), 11);
    assert_eq!(after[..8], before);
    assert_eq!(world.count("evaluations"), 11);
}

#[test]
fn two_campaigns_share_a_file_and_its_latency_table() {
    let world = World::new("shared");
    assert_eq!(world.say(&["run"]).code, 0);
    let measured = world.count("measurements");
    world.edit("name = \"small\"", "name = \"a second one\"");
    let said = world.say(&["run"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let whole_models = world.count("measurements") - measured;
    let first: serde_json::Value =
        serde_json::from_str(&world.say(&["show", "small", "--json"]).stdout).expect("JSON");
    let rows = first["candidates"].as_array().expect("a list");
    let wholes = 2 * rows.iter().filter(|row| !row["decode_whole"].is_null()).count();
    assert_eq!(whole_models, wholes + 2 * 6, "parts that are in the table were timed again");
    assert!(said.stdout.contains("deltafront browse 'a second one'"), "{}", said.stdout);
    let said = world.say(&["show"]);
    assert!(
        said.code == 1 && said.stderr.contains("name one: small, a second one"),
        "{}",
        said.stderr
    );
}

#[test]
fn over_the_budget_nothing_is_trained() {
    let world = World::new("budget");
    world.edit("[search]", "[latency]\ndecode_budget_us = 200.0\n\n[search]");
    let said = world.say(&["run"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let campaign = world.campaign();
    let rows = campaign["candidates"].as_array().expect("a list");
    let dropped: Vec<_> = rows.iter().filter(|row| row["state"] == "infeasible").collect();
    assert!(!dropped.is_empty() && dropped.len() < rows.len());
    for row in rows {
        let decode_us = row["values"]["decode_us"]["mean"].as_f64().expect("timed");
        assert_eq!(decode_us > 200.0, row["state"] == "infeasible", "{decode_us}");
        assert_eq!(
            row["state"] == "infeasible",
            row["curve"].as_array().expect("a list").is_empty()
        );
    }
    assert_eq!(world.count("evaluations"), rows.len() - dropped.len());
}

#[test]
fn a_campaign_keeps_the_precision_that_auto_was_when_it_began() {
    let mut world = World::new("precision");
    let configured = |world: &World, precision: &str| {
        let text = format!("\"precision\":\"{precision}\"");
        let configuration = world.read("configuration");
        assert!(configuration.contains(&text), "{precision}: {configuration}");
    };
    // A trainer that does not say is left to find it out.
    assert_eq!(world.say(&["run"]).code, 0);
    configured(&world, "auto");
    // What an older program began goes on as that did.
    world.set("FAKE_AUTO", "fp32");
    world.edit("evaluations = 8", "evaluations = 9");
    assert_eq!(world.say(&["run"]).code, 0);
    configured(&world, "bf16");
    world.edit("name = \"small\"", "name = \"later\"");
    assert_eq!(world.say(&["run"]).code, 0);
    configured(&world, "fp32");
    // On a machine that would choose otherwise, and in what it is compared in.
    world.set("FAKE_AUTO", "bf16");
    world.edit("evaluations = 9", "evaluations = 10");
    assert_eq!(world.say(&["run"]).code, 0);
    configured(&world, "fp32");
    let words = ["compare", "later", "full-attention", "--stacks", "samba", "--seeds", "1"];
    let said = world.say(&words);
    assert_eq!(said.code, 0, "{}", said.stderr);
    configured(&world, "fp32");
    let said = world.say(&["doctor"]).stdout;
    assert!(said.contains("15.4 k tokens/s in fp32 and 11.7 k in bf16: `auto` is bf16"), "{said}");
    assert!(said.contains("`precision = \"fp32\"` in [training] settles it by hand"), "{said}");
}

/// As if the campaign had begun under training rule 1.
async fn began_under_rule_1(path: &Path) {
    let store = Store::open(path, Access::ReadWrite).await.expect("the campaign's database");
    let run = store.begin_run("small", &Owner::current(), "0").await.expect("a free campaign");
    let older = Circumstance {
        key: "training.rule".to_owned(),
        value: "1".to_owned(),
        stamp: String::new(),
    };
    store.apply(&run, &[Change::Circumstance(older)]).await.expect("room for it");
    store.end_run(&run, RunEnd::Finished).await.expect("our run");
    store.close().await;
}

#[test]
fn a_campaign_of_another_training_rule_is_not_gone_on_with() {
    let world = World::new("rule");
    assert_eq!(world.say(&["run"]).code, 0);
    world.edit("evaluations = 8", "evaluations = 9");
    assert_eq!(world.say(&["run"]).code, 0, "it goes on under its own");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(began_under_rule_1(&world.folder.join("deltafront.db")));
    world.edit("evaluations = 9", "evaluations = 10");
    let said = world.say(&["run"]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains("was trained under training rule 1, and this"), "{}", said.stderr);
    assert!(said.stderr.contains("give this one another `name`"), "{}", said.stderr);
}

#[test]
fn a_log_of_json_lines_and_a_command_tell_how_a_run_went() {
    let mut world = World::new("watched");
    world.set("FAKE_TRAINER", "exit 2");
    let notify = "echo $DELTAFRONT_CAMPAIGN $DELTAFRONT_STATE \"$DELTAFRONT_REASON\" >> told";
    assert_eq!(world.say(&["run", "--log", "run.jsonl", "--notify", notify]).code, 0);
    assert_eq!(world.read("told").trim(), "small finished");
    let log = world.read("run.jsonl");
    let events: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect();
    let count = |message: &str| events.iter().filter(|event| event["message"] == message).count();
    assert_eq!(count("candidate ended"), EVALUATIONS, "{log}");
    assert_eq!(count("training asked"), EVALUATIONS + 1);
    assert_eq!((count("attempt failed"), count("run begins"), count("run ends")), (1, 1, 1));
    let failed = events.iter().find(|event| event["message"] == "attempt failed").expect("one");
    assert_eq!((&failed["level"], &failed["kind"]), (&"WARN".into(), &"crashed".into()));
    assert!(events.iter().all(|event| event["timestamp"].is_string()));
    // One that halts is told with its reason; one that its user stops is not.
    world.set("FAKE_TRAINER", "configure");
    world.edit("evaluations = 8", "evaluations = 9");
    assert_eq!(world.say(&["run", "--notify", notify]).code, 1);
    let told = world.read("told");
    assert!(told.contains("small halted") && told.contains("12 tokens"), "{told}");
    // The campaign file names a command, too; that of the flag wins. Neither is what results depend on.
    world.set("FAKE_TRAINER", "");
    let text = world.read("campaign.toml");
    world.write("campaign.toml", &format!("{text}\n[notify]\ncommand = \"echo file >> told\"\n"));
    assert_eq!(world.say(&["run"]).code, 0);
    assert!(world.read("told").ends_with("\nfile\n"), "{}", world.read("told"));
    world.edit("evaluations = 9", "evaluations = 10");
    assert_eq!(world.say(&["run", "--notify", "echo flag >> told"]).code, 0);
    assert!(world.read("told").ends_with("\nfile\nflag\n"), "{}", world.read("told"));
    world.edit("evaluations = 10", "evaluations = 11");
    world.edit("echo file >> told", "exit 3");
    let said = world.say(&["run"]);
    assert_eq!(said.code, 0);
    assert!(said.stderr.contains("the command of notify.command ended with"), "{}", said.stderr);
}

#[test]
fn a_candidate_is_trained_again_and_compared() {
    let mut world = World::new("replay");
    assert_eq!(world.say(&["run"]).code, 0);
    let said = world.say(&["replay", "small", "3"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(
        said.stdout.contains("bits_per_byte") && said.stdout.contains("equal"),
        "{}",
        said.stdout
    );
    assert!(said.stderr.contains("for 65.5 k tokens from seed 3"), "{}", said.stderr);
    assert!(!said.stderr.contains("trained by"), "by the same as then: {}", said.stderr);
    let said_of_it = world.say(&["show", "small", "3", "--json"]).stdout;
    let of_it: serde_json::Value = serde_json::from_str(&said_of_it).expect("JSON");
    let by = &of_it["trained_by"][0];
    assert_eq!((&by["worker"], &by["device"]), (&"fake-train 1.0".into(), &"cpu: fake".into()));
    assert_eq!((&by["tokens"], &by["seed"]), (&65_536.into(), &3.into()), "{by}");
    assert_eq!(world.candidates().len(), EVALUATIONS, "nothing is written");
    // Another loss than noise explains.
    world.set("FAKE_FIXED", "1");
    let said = world.say(&["replay", "small", "4", "--json"]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    let rows: serde_json::Value = serde_json::from_str(&said.stdout).expect("JSON");
    let rows = rows.as_array().expect("a list");
    let loss = rows.iter().find(|row| row["value"] == "bits_per_byte").expect("it is reported");
    assert_eq!(loss["verdict"], "differs", "{loss}");
    assert_eq!(world.say(&["replay", "small", "3", "--tokens", "17"]).code, 1);
    world.write("corpus.txt", &"another text, ".repeat(1000));
    let said = world.say(&["replay", "small", "3"]);
    assert_eq!(said.code, 1);
    assert!(said.stderr.contains("holds something else"), "{}", said.stderr);
}

#[test]
fn what_a_training_left_on_its_way_goes_when_it_is_over() {
    let world = World::new("on_its_way");
    assert_eq!(world.say(&["run"]).code, 0);
    let campaign = world.campaign();
    let third = &campaign["candidates"][2];
    let (id, seed) = (third["id"].as_str().expect("a text"), &third["seed"]);
    // The same again; its worker had handed it back by this folder, and finishes it in another.
    std::fs::remove_file(world.folder.join("deltafront.db")).expect("it is there");
    let left = |seed: &str| {
        let folder = "deltafront-files/small/checkpoints";
        world.folder.join(format!("{folder}/{id}-seed{seed}-65536-going.trunk.safetensors"))
    };
    let (over, other) = (left(&seed.to_string()), left("123"));
    for file in [&over, &other] {
        std::fs::write(file, "weights").expect("the folder is there");
    }
    assert_eq!(world.say(&["run"]).code, 0);
    assert!(!over.exists(), "nobody goes on from there");
    assert!(other.exists(), "a training of another seed may be on its way");
}
