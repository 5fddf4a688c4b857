//! Bad input: one clear message, a non-zero exit, nothing lost.

use super::harness::World;

fn complaint(world: &World, arguments: &[&str]) -> String {
    let said = world.say(arguments);
    assert_eq!(said.code, 1, "{}{}", said.stdout, said.stderr);
    assert_eq!(said.stdout, "");
    said.stderr
}

#[test]
fn errors_of_the_campaign_file_point_at_their_line() {
    let world = World::new("file");
    world.edit("evaluations = 8", "evalutions = 8");
    insta::assert_snapshot!("unknown_key", complaint(&world, &["run"]));
    world.edit("evalutions = 8", "evaluations = \"many\"");
    insta::assert_snapshot!("wrong_type", complaint(&world, &["run"]));
    world.edit("evaluations = \"many\"", "evaluations = ");
    insta::assert_snapshot!("not_toml", complaint(&world, &["run"]));
    world.edit("evaluations = ", "evaluations = 8");
    world.edit("head_width = [8]", "head_width = [7]");
    insta::assert_snapshot!("impossible", complaint(&world, &["run"]));
    world.edit("head_width = [7]", "head_width = [8]");
    world.edit("corpus.txt", "corpse.txt");
    insta::assert_snapshot!("no_corpus", complaint(&world, &["run"]));
    assert!(
        !world.folder.join("deltafront.db").exists(),
        "a campaign that never began leaves nothing"
    );
}

#[test]
fn a_missing_file_or_database_says_what_makes_one() {
    let world = World::new("missing");
    let said = complaint(&world, &["run", "other.toml"]);
    assert!(said.contains("`deltafront init other.toml`"), "{said}");
    for command in [vec!["list"], vec!["show"], vec!["browse"], vec!["export", "small", "1"]] {
        let said = complaint(&world, &command);
        assert!(said.contains("there is no database at deltafront.db"), "{said}");
    }
    assert_eq!(world.say(&["frobnicate"]).code, 2);
    assert_eq!(world.say(&["show", "--jsn"]).code, 2);
}

#[test]
fn a_changed_campaign_file_is_refused_with_what_changed() {
    let world = World::new("changed");
    assert_eq!(world.say(&["run"]).code, 0);
    world.edit("evaluations = 8", "evaluations = 9");
    world.edit("tokens = 65_536", "tokens = 32_768");
    world.edit("depth = { min = 1, max = 3 }", "depth = { min = 1, max = 4 }");
    insta::assert_snapshot!("changed_file", complaint(&world, &["run"]));
    world.edit("name = \"small\"", "name = \"other\"");
    assert_eq!(world.say(&["run"]).code, 0);
}

#[test]
fn names_that_are_not_there() {
    let world = World::new("names");
    assert_eq!(world.say(&["run"]).code, 0);
    let said = complaint(&world, &["show", "smal"]);
    assert!(said.contains("no campaign `smal`") && said.contains("it holds: small"), "{said}");
    let said = complaint(&world, &["show", "small", "99"]);
    assert!(said.contains("no candidate `99`") && said.contains("(1 to 8)"), "{said}");
    let said = complaint(&world, &["export", "small", "nonesuch"]);
    assert!(said.contains("no candidate `nonesuch`"), "{said}");
    let id = world.campaign()["candidates"][4]["id"].as_str().expect("an id").to_owned();
    for word in ["5", "#5", &id, &id[..6]] {
        let said = world.say(&["show", "small", word]);
        assert!(
            said.stdout.starts_with("candidate 5 of small"),
            "{word}: {}{}",
            said.stdout,
            said.stderr
        );
    }
    assert!(
        world.say(&["show", "small", "full-attention"]).stdout.starts_with("candidate 1 of small")
    );
}

#[test]
fn a_database_that_is_none_is_left_alone() {
    let world = World::new("foreign");
    world.write("notes.db", &"my notes ".repeat(100));
    for command in [vec!["run", "--db", "notes.db"], vec!["list", "--db", "notes.db"]] {
        let said = complaint(&world, &command);
        assert!(said.contains("notes.db is not a deltafront database"), "{said}");
    }
    assert_eq!(world.read("notes.db"), "my notes ".repeat(100));
}

#[test]
fn init_overwrites_nothing() {
    let world = World::new("init");
    let said = complaint(&world, &["init"]);
    assert!(said.contains("campaign.toml is there already"), "{said}");
    let said = world.say(&["init", "--force", "--corpus", "corpus.txt"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let text = world.read("campaign.toml");
    assert!(text.contains("corpus = \"corpus.txt\""), "{text}");
    assert!(text.contains("name = \"init\""), "{text}");
    let said = complaint(&world, &["init", "new.toml", "--corpus", "nothing.txt"]);
    assert!(said.contains("there is no nothing.txt"), "{said}");
    // In another folder the corpus is found from there.
    assert_eq!(world.say(&["init", "sub/campaign.toml", "--corpus", "corpus.txt"]).code, 0);
    let said = world.say(&["run", "sub/campaign.toml", "--db", "sub/x.db"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stdout.contains("deltafront show --db sub/x.db sub "), "{}", said.stdout);
}

#[test]
fn another_text_behind_the_same_path_is_refused_as_another_path_would_be() {
    let world = World::new("replaced");
    let tokenizer = |merges: &str| {
        world.write(
            "tokenizer.json",
            &format!("{{\"model\": {{\"type\": \"BPE\", \"merges\": [{merges}]}}}}"),
        );
    };
    tokenizer("");
    world.edit("corpus = \"corpus.txt\"", "corpus = \"texts\"\ntokenizer = \"tokenizer.json\"");
    let texts = world.folder.join("texts/deep");
    std::fs::create_dir_all(&texts).expect("the scratch folder is writable");
    world.write("texts/b.txt", "one text");
    world.write("texts/deep/a.txt", "another text");
    world.write("texts/notes.md", "not read");
    assert_eq!(world.say(&["run"]).code, 0);
    // The trainer is told what it must find.
    let configuration = world.read("configuration");
    assert!(configuration.contains("\"contents\":{\"data.corpus\":\""), "{configuration}");
    assert!(configuration.contains("\"data.tokenizer\":\""), "{configuration}");

    // Written again, copied, and with another file beside it: the same.
    world.write("texts/b.txt", "one text");
    world.write("texts/notes.md", "still not read");
    world.edit("evaluations = 8", "evaluations = 9");
    assert_eq!(world.say(&["run"]).code, 0);
    assert_eq!(world.candidates().len(), 9);

    world.edit("evaluations = 9", "evaluations = 10");
    let evaluations = world.count("evaluations");
    let refused = |what: &str| {
        let said = complaint(&world, &["run"]);
        let [first, changed, last] = said.lines().collect::<Vec<_>>()[..] else {
            panic!("three lines: {said}")
        };
        let begun = "what campaign.toml names has changed since campaign `small` began";
        assert!(first.contains(begun), "{said}");
        assert!(changed.contains(what), "{said}");
        assert!(last.starts_with("give the changed campaign another `name`"), "{said}");
        assert_eq!(world.count("evaluations"), evaluations, "nothing was trained");
    };
    // As long as it was, and of the same time.
    let file = world.folder.join("texts/b.txt");
    let modified = std::fs::metadata(&file).and_then(|found| found.modified()).expect("a time");
    world.write("texts/b.txt", "One text");
    let open = std::fs::File::options().write(true).open(&file).expect("it is there");
    open.set_modified(modified).expect("it is ours");
    refused("  data.corpus: [folder]/texts holds something else (");
    world.write("texts/b.txt", "one text");
    tokenizer("\"a b\"");
    refused("  data.tokenizer: [folder]/tokenizer.json holds something else (");
    // A comparison would train on it too.
    let said = complaint(&world, &["compare", "small", "1"]);
    assert!(
        said.contains("data.tokenizer: [folder]/tokenizer.json holds something else"),
        "{said}"
    );
    assert!(!world.say(&["list"]).stdout.contains("compare"), "nothing is made of it");
    tokenizer("");
    assert_eq!(world.say(&["run"]).code, 0);
    assert_eq!(world.candidates().len(), 10);
}

#[test]
fn a_preset_is_a_campaign_that_runs() {
    let world = World::new("presets");
    for preset in ["demo", "cpu", "gpu", "serious"] {
        let file = format!("{preset}.toml");
        let said = world.say(&[
            "init",
            &file,
            "--preset",
            preset,
            "--corpus",
            "corpus.txt",
            "--name",
            preset,
        ]);
        assert_eq!(said.code, 0, "{}", said.stderr);
        assert!(said.stdout.starts_with(&format!("wrote {file}: ")), "{}", said.stdout);
        let text = world.read(&file);
        assert!(text.contains(&format!("name = \"{preset}\"")), "{text}");
        assert!(text.contains("corpus = \"corpus.txt\""), "{text}");
    }
    assert_eq!(world.say(&["init", "x.toml", "--preset", "huge"]).code, 2);
}

#[test]
fn a_budget_of_hours_ends_the_proposals_and_counts_what_was_spent_before() {
    let mut world = World::new("hours");
    world.set("FAKE_TRAINER", "slow 0.5");
    world.edit("evaluations = 8", "evaluations = 200\nhours = 0.0005");
    let said = world.say(&["run"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let over = "the 0.0005 hours of search.hours are over";
    assert!(said.stderr.contains(&format!("the search ended early: {over}")), "{}", said.stderr);
    let done = world.count("evaluations");
    assert!((4..20).contains(&done), "{done} were evaluated");
    // More time, and it goes on.
    world.edit("hours = 0.0005", "hours = 0.1");
    world.edit("evaluations = 200", &format!("evaluations = {}", done + 2));
    let said = world.say(&["run"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(world.count("evaluations"), done + 2);
}
