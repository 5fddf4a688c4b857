//! `deltafront report --html` and `--svg`.

use std::collections::BTreeSet;
use std::path::Path;

use roxmltree::{Document, ParsingOptions};

use super::harness::World;

/// The page of a campaign, which must be well-formed and need nothing else.
fn page(world: &World, campaign: &[&str]) -> String {
    let arguments = [&["report"], campaign, &["--html", "page.html", "--force"]].concat();
    let said = world.say(&arguments);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(
        said.stdout.is_empty() && said.stderr.starts_with("wrote page.html, "),
        "{}",
        said.stderr
    );
    let page = world.read("page.html");
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    let document = Document::parse_with_options(&page, options).expect("XML");
    let mut names = BTreeSet::new();
    for node in document.descendants() {
        for attribute in node.attributes() {
            match attribute.name() {
                "src" | "srcset" | "action" | "data" => panic!("{node:?} loads something"),
                "href" => assert!(attribute.value().starts_with('#'), "{node:?}"),
                "id" => assert!(names.insert(attribute.value()), "{node:?} is there twice"),
                _ => {}
            }
        }
        assert!(!node.has_tag_name("link") && !node.has_tag_name("iframe"));
    }
    for word in ["http:", "https:", "@import", "url("] {
        assert!(!page.contains(word), "`{word}` is in the page");
    }
    // What is drawn with a variable finds it.
    for rest in page.split("var(--").skip(1) {
        let name = rest.split(')').next().unwrap_or_default();
        assert!(
            name == "chance" || page.contains(&format!("--{name}:#")),
            "`{name}` has no colour"
        );
    }
    page
}

fn front(world: &World, campaign: &str) -> Vec<u64> {
    let said = world.say(&["show", campaign, "--json"]);
    let json: serde_json::Value = serde_json::from_str(&said.stdout).expect("JSON");
    let rows = json["candidates"].as_array().expect("a list").iter();
    rows.filter(|row| row["rank"] == 0).filter_map(|row| row["number"].as_u64()).collect()
}

#[test]
fn a_page_has_the_front_and_what_is_known_of_it() {
    let mut world = World::new("page");
    world.set("FAKE_FIXED", "1");
    world.set("FAKE_NOISE", "1");
    world.set("FAKE_TEST", "2.713");
    let rungs = "evaluations = 12\nalgorithm = \"random\"\nrungs = [16_384]\npromote = 2";
    world.edit("evaluations = 8", rungs);
    world.edit("[evaluator]", "[trust]\nrepeats = 3\nlonger = 5\n\n[evaluator]");
    assert_eq!(world.say(&["run"]).code, 0);
    let page = page(&world, &[]);
    let front = front(&world, "small");
    assert!(!front.is_empty());
    for number in front {
        for what in
            [format!("id=\"c{number}\""), format!("href=\"#c{number}\" data-n=\"{number}\"")]
        {
            assert!(page.contains(&what), "{what}");
        }
        assert!(page.contains(&format!("deltafront export small {number} --to hf")), "{number}");
    }
    // What the text says.
    let text = world.say(&["report"]).stdout;
    for line in text.lines().filter(|line| line.contains("how often") || line.contains("degree")) {
        assert!(page.contains(line), "{line}");
    }
    for figure in [
        "front",
        "hypervolume",
        "rank-agreement",
        "mixer-use",
        "latency-by-layer",
        "parallel-coordinates",
    ] {
        assert!(page.contains(&format!("<figure id=\"figure-{figure}\">")), "{figure}");
    }
}

#[test]
fn a_page_is_whole_and_replaces_nothing_unasked() {
    let world = World::new("page_whole");
    assert_eq!(world.say(&["run"]).code, 0);
    world.write("page.html", "mine");
    let said = world.say(&["report", "--html", "page.html", "--svg", "plots"]);
    assert_eq!((said.code, world.read("page.html").as_str()), (1, "mine"), "{}", said.stderr);
    assert!(said.stderr.contains("--force overwrites it"), "{}", said.stderr);
    assert!(!world.folder.join("plots").exists());
    let said = world.say(&["report", "--html", "deltafront.db", "--force"]);
    assert!(said.code == 1 && said.stderr.contains("the database itself"), "{}", said.stderr);
    let said = world.say(&["report", "--svg", "plots"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(world.say(&["report", "--svg", "plots"]).code, 1);
    assert_eq!(world.say(&["report", "--svg", "plots", "--force"]).code, 0);
    world.write("plots/notes.txt", "mine");
    let said = world.say(&["report", "--svg", "plots", "--force"]);
    assert!(said.code == 1 && said.stderr.contains("notes.txt"), "{}", said.stderr);
    let index: serde_json::Value =
        serde_json::from_str(&world.read("plots/figures.json")).expect("JSON");
    let figures = index.as_array().expect("a list");
    assert!(figures.len() >= 5, "{index}");
    for figure in figures {
        let file = format!("plots/{}.svg", figure["name"].as_str().expect("a name"));
        let text = world.read(&file);
        let picture = Document::parse(&text).expect("XML");
        assert!(
            picture.root_element().has_tag_name(("http://www.w3.org/2000/svg", "svg")),
            "{file}"
        );
        assert!(!text.contains("var(") && picture.descendants().count() > 10, "{file}");
    }
    let left = std::fs::read_dir(&world.folder).expect("the folder");
    let is_part = |name: &str| Path::new(name).extension().is_some_and(|end| end == "part");
    let left: Vec<_> =
        left.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    assert!(!left.iter().any(|name| is_part(name)), "{left:?}");
}

#[test]
fn names_and_logs_do_not_become_markup() {
    let mut world = World::new("page_escape");
    world.set("FAKE_TRAINER", "exit 3");
    world.edit("name = \"small\"", "name = \"<i>a & 'b'\"");
    world.edit("[search]", "[search]\nattempts = 1");
    let trainer = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/program/workers/trainer.sh");
    let trainer = std::fs::read_to_string(trainer).expect("the trainer");
    world.write("trainer.sh", &trainer.replace("out of luck", "</script><b>out of luck"));
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(world.folder.join("trainer.sh"), mode).expect("it is ours");
    let path = world.folder.join("trainer.sh");
    world.set("DELTAFRONT_TRAIN", path.to_str().expect("UTF-8"));
    let run = world.say(&["run"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let page = page(&world, &[]);
    assert!(!page.contains("<i>") && page.contains("<h1>&lt;i&gt;a &amp; 'b'</h1>"));
    assert!(!page.contains("</script><b>") && page.contains("&lt;/script&gt;&lt;b&gt;out of luck"));
    assert!(!page.contains(" & "), "an ampersand in a script ends the page as XML");
}

#[test]
fn one_candidate_or_none_is_a_page_too() {
    let world = World::new("page_one");
    world.edit("evaluations = 8", "evaluations = 1");
    world.edit("references = [\"full-attention\", \"gated-deltanet\"]", "references = []");
    assert_eq!(world.say(&["run"]).code, 0);
    assert!(page(&world, &[]).contains("id=\"c1\""));

    let mut world = World::new("page_none");
    world.set("FAKE_TRAINER", "exit *");
    assert_ne!(world.say(&["run"]).code, 0);
    let page = page(&world, &[]);
    assert!(page.contains("Nothing is evaluated yet.") && page.contains("out of luck"));
}

#[test]
fn a_black_box_has_a_page() {
    let world = World::new("page_box");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/black_box.py");
    let command = format!("python3 {}", example.display());
    assert_eq!(world.say(&["optimize", "--command", &command, "--evaluations", "30"]).code, 0);
    let page = page(&world, &["black-box"]);
    for number in front(&world, "black-box") {
        assert!(page.contains(&format!("id=\"c{number}\"")), "{number}");
    }
    assert!(page.contains("accuracy") && !page.contains("Depth and width"));
}

#[test]
fn random_campaigns_stand_beside_and_comparisons_below() {
    let mut world = World::new("page_beside");
    world.set("FAKE_FIXED", "1");
    world.set("FAKE_NOISE", "1");
    world.set("FAKE_PROFILER", "widths");
    assert_eq!(world.say(&["run"]).code, 0);
    let alone = page(&world, &["small"]);
    world.edit("name = \"small\"", "name = \"chance\"");
    world.edit("[search]", "[search]\nalgorithm = \"random\"");
    assert_eq!(world.say(&["run"]).code, 0);
    let compare = ["compare", "small", "full-attention", "--stacks", "deltanet,swa"];
    assert_eq!(world.say(&compare).code, 0);
    let beside = page(&world, &["small"]);
    let climb = |page: &str| {
        let from = page.find("figure-hypervolume").expect("the figure");
        page[from..from + page[from..].find("</figure>").expect("its end")].to_owned()
    };
    assert!(
        !climb(&alone).contains(">random") && climb(&beside).contains(">random"),
        "{}",
        climb(&beside)
    );
    assert!(alone.contains("was compared yet") && beside.contains("candidate 1, small-compare-1"));
    // The table is that of the command.
    let table = world.say(&compare[..3]).stdout;
    let deltanet = table.lines().find(|line| line.contains("deltanet")).expect("a row");
    for cell in deltanet.split("  ").map(str::trim).filter(|cell| !cell.is_empty()) {
        assert!(beside.contains(cell), "`{cell}` of {deltanet}");
    }
}
