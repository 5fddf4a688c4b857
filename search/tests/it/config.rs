//! The campaign file: the template parses and is complete, and every mistake is pointed at.

use proptest::prelude::*;
use search::config::{CampaignFile, ConfigError, Preset, TEMPLATE, json_schema};
use search::latency::Phase;
use search::references::Reference;

/// The error of the template with `good` replaced by `bad`.
fn error(good: &str, bad: &str) -> ConfigError {
    assert!(TEMPLATE.contains(good), "{good} is not in the template");
    CampaignFile::parse(&TEMPLATE.replacen(good, bad, 1)).expect_err(bad)
}

#[test]
fn the_template_parses() {
    let file = CampaignFile::parse(TEMPLATE).expect("the template is a campaign file");
    assert_eq!(
        file.references(),
        [Reference::FullAttention, Reference::GatedDeltaNet, Reference::SwaFull]
    );
    let space = file.space().expect("a possible space");
    assert!(space.size() > 1e6);
    assert!(file.search.evaluations >= 24);
}

#[test]
fn the_template_stands_at_its_defaults_where_it_says_so() {
    let file = CampaignFile::parse(TEMPLATE).expect("the template is a campaign file");
    let bare = "name = \"campaign\"\n[data]\ncorpus = \"corpus.txt\"\n[space]\nd_model = [64]\n\
                depth = { min = 2, max = 6 }\n[space.mixers.gdn]\n";
    let bare = CampaignFile::parse(bare).expect("the shortest campaign file");
    assert_eq!(file.seed, bare.seed);
    assert_eq!(file.data, bare.data);
    assert_eq!(file.latency, bare.latency);
    assert_eq!(file.evaluator, bare.evaluator);
    assert_eq!(
        file.training,
        search::config::TrainingConfig { batch: 4, validation_tokens: 32_768, ..bare.training }
    );
    assert_eq!(
        file.search,
        search::config::SearchConfig {
            evaluations: 32,
            concurrency: 2,
            references: file.search.references.clone(),
            ..bare.search
        }
    );
}

#[test]
fn what_is_commented_out_in_the_template_is_right_too() {
    let uncommented: Vec<String> = TEMPLATE
        .replace("\"none\", \"1x\"", "\"1x\"")
        .lines()
        .map(|line| {
            let bare = line.strip_prefix("# ").unwrap_or(line);
            let is_key = bare
                .split_once(" = ")
                .is_some_and(|(key, _)| key.chars().all(|c| c.is_alphanumeric() || c == '_'));
            if is_key || bare.starts_with('[') { bare.to_owned() } else { line.to_owned() }
        })
        .collect();
    let file =
        CampaignFile::parse(&uncommented.join("\n")).expect("the template with all its keys");
    assert_eq!(file.space.stages.len(), 1);
    assert_eq!(file.search.limits.len(), 4);
    assert_eq!(file.evaluator.command.as_deref(), Some("python my_trainer.py"));
}

#[test]
fn the_template_and_the_schema_name_the_same_keys() {
    let schema = serde_json::to_value(json_schema()).expect("a schema is JSON");
    let mut keys = Vec::new();
    let definitions = schema["$defs"].as_object().expect("definitions").values();
    for object in definitions.chain([&schema]) {
        for (key, property) in object["properties"].as_object().into_iter().flatten() {
            keys.push(key.clone());
            let described = property
                .get("description")
                .or_else(|| property.get("$ref"))
                .or_else(|| property.get("anyOf"));
            assert!(described.is_some(), "`{key}` has no description: {property}");
        }
    }
    assert!(keys.len() > 60, "{keys:?}");
    for key in keys {
        let is_there =
            TEMPLATE.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == key);
        assert!(is_there, "the template says nothing of `{key}`");
    }
    assert_eq!(schema["$defs"]["TrainingConfig"]["properties"]["tokens"]["default"], 262_144);
    assert_eq!(schema["$defs"]["SpaceConfig"]["properties"]["vocab"]["default"], 256);
}

#[test]
fn errors_name_the_key_and_point_at_the_text() {
    // (in the template, written instead, key, text pointed at, part of the message)
    let cases = [
        ("seed = 0 ", "sead = 0 ", "sead", "sead", "did you mean `seed`?"),
        ("batch = 4", "bacth = 4", "training.bacth", "bacth", "did you mean `batch`?"),
        ("[training]", "[trainig]", "trainig", "trainig", "did you mean `training`?"),
        (
            "[space.mixers.gdn]",
            "[space.mixers.gdm]",
            "space.mixers.gdm",
            "gdm",
            "there are attn, swa, dn, gdn, dp, gdp, m2",
        ),
        (
            "window = [32",
            "widow = [32",
            "space.mixers.swa.widow",
            "widow",
            "did you mean `window`?",
        ),
        ("max = 6 }", "maxi = 6 }", "space.depth.maxi", "maxi", "did you mean `max`?"),
        ("batch = 4", "batch = \"4\"", "training.batch", "\"4\"", "expected a whole number"),
        ("batch = 4", "batch = -4", "training.batch", "-4", "expected a whole number"),
        (
            "learning_rate = \"auto\"",
            "learning_rate = true",
            "training.learning_rate",
            "true",
            "expected a number, or \"auto\"",
        ),
        ("[64, 96, 128, 160]", "[64, 96.5]", "space.d_model.1", "96.5", "expected a whole number"),
        ("[64, 96, 128, 160]", "64", "space.d_model", "64", "expected a list"),
        ("\"3x\"]", "\"3y\"]", "space.ffn.3", "\"3y\"", "a multiple of d_model"),
        (
            "head_width = [32] ",
            "head_width = \"all\" ",
            "space.mixers.attn.head_width",
            "\"all\"",
            "or \"auto\"",
        ),
        (
            "\"surrogate\" ",
            "\"surogate\" ",
            "search.algorithm",
            "\"surogate\"",
            "did you mean `surrogate`?",
        ),
        ("\"fp32\" ", "\"fp16\" ", "latency.dtype", "\"fp16\"", "there are fp32, bf16"),
        ("corpus = \"corpus.txt\"", "", "data.corpus", "[data]", "needed and missing"),
        ("[64, 96, 128, 160]", "[]", "space.d_model", "[]", "nothing to choose"),
        (
            "min = 2, max = 6",
            "min = 7, max = 6",
            "space.depth",
            "{ min = 7, max = 6 }",
            "more than max",
        ),
        (
            "key_width = [16, 32] ",
            "key_width = [24] ",
            "space.mixers.dn.key_width",
            "[24]",
            "does not divide 64",
        ),
        (
            "state_width = [32, 64]",
            "state_width = []",
            "space.mixers.m2.state_width",
            "[]",
            "nothing to choose",
        ),
        (
            "# max_parameters = 2_000_000 ",
            "max_parameters = 2_000 ",
            "space.max_parameters",
            "2_000",
            "smallest found",
        ),
        ("fraction = 0.1  ", "fraction = 1.0  ", "data.validation_fraction", "1.0", "below 1"),
        ("tokens = 262_144", "tokens = 1000", "training.tokens", "1000", "less than one step"),
        (
            "learning_rate = \"auto\"",
            "learning_rate = nan",
            "training.learning_rate",
            "nan",
            "above 0",
        ),
        ("beta2 = 0.95", "beta2 = 1.5", "training.beta2", "1.5", "below 1"),
        ("device = \"cpu\"", "device = \"gpu\"", "training.device", "\"gpu\"", "cuda:0"),
        (
            "[latency]\ndevice = \"cpu\"",
            "[latency]\ndevice = \"gpu\"",
            "latency.device",
            "\"gpu\"",
            "cuda:0",
        ),
        (
            "\"swa-full\"]",
            "\"swafull\"]",
            "search.references.2",
            "\"swafull\"",
            "did you mean `swa-full`?",
        ),
        (
            "\"decode_us\"]",
            "\"decode_ms\"]",
            "search.objectives.1",
            "\"decode_ms\"",
            "did you mean `decode_us`?",
        ),
        (
            "# prefill_us = 20",
            "prefill = 20",
            "search.limits.prefill",
            "20_000.0",
            "`prefill` is not a value",
        ),
        ("evaluations = 32", "evaluations = 2", "search.evaluations", "2", "3 references"),
        (
            "timeout_seconds = 300.0",
            "timeout_seconds = 0",
            "evaluator.timeout_seconds",
            "0",
            "above 0",
        ),
        ("name = \"campaign\"", "name = \"\"", "name", "\"\"", "1 to 100 characters"),
        ("vocab = 256", "vocab = 100", "space.vocab", "100", "bytes need"),
    ];
    for (good, bad, key, pointed_at, message) in cases {
        let text = TEMPLATE.replacen(good, bad, 1);
        let error = error(good, bad);
        assert_eq!(error.key, key, "{bad}: {error}");
        assert_eq!(&text[error.span.clone()], pointed_at, "{bad}: {error}");
        assert!(error.message.contains(message), "{bad}: {error}");
        let line = text[..error.span.start].split('\n').count();
        assert_eq!(error.line, line, "{bad}");
        assert_eq!(
            text.lines().nth(line - 1).and_then(|l| l.find(pointed_at)).map(|at| at + 1),
            Some(error.column),
            "{bad}"
        );
    }
}

#[test]
fn targets_take_what_they_leave_out_from_the_section() {
    let with = |targets: &str, objective: &str| {
        let objectives = format!("\"bits_per_byte\", \"decode_us\", \"{objective}\"");
        CampaignFile::parse(
            &TEMPLATE
                .replace("\"bits_per_byte\", \"decode_us\"", &objectives)
                .replace("[search]\n", &format!("{targets}\n[search]\n")),
        )
    };
    let server = "[latency.targets.server]\ndtype = \"int8\"\ndecode_context = 2048\n";
    let phone = "[latency.targets.phone]\nprefill_tokens = 0\ncommand = \"./time\"\n";
    let file = with(&format!("{server}{phone}"), "decode_us.server").expect("it is right");
    let targets = file.latency.targets();
    let names: Vec<Option<&str>> = targets.iter().map(|target| target.name.as_deref()).collect();
    assert_eq!(names, [None, Some("phone"), Some("server")]);
    // Of one target alone all is as ever.
    assert_eq!(targets[0].latencies("here"), file.latency.latencies("here"));
    assert_eq!(targets[0].key("device"), "latency.device");
    let latencies = targets[2].latencies("there");
    let texts: Vec<String> = latencies.iter().map(|(name, of)| format!("{name}: {of}")).collect();
    assert_eq!(
        texts,
        [
            "decode_us.server: decode at 2048, batch 1, int8, 1 threads, there",
            "prefill_us.server: prefill of 512, batch 1, int8, 1 threads, there",
        ]
    );
    assert_eq!(targets[1].latencies("").len(), 1, "no prefill");
    assert_eq!(targets[1].latency.command.as_deref(), Some("./time"));
    assert_eq!(
        (targets[0].latency.command.clone(), targets[2].latency.command.clone()),
        (None, None)
    );
    for (targets, objective, key, message) in [
        (
            "",
            "decode_us.server",
            "search.objectives.2",
            "there is no target [latency.targets.server]",
        ),
        (server, "decode_us.sever", "search.objectives.2", "did you mean `server`?"),
        (server, "parameters.server", "search.objectives.2", "is not a value"),
        (phone, "prefill_us.phone", "latency.targets.phone.prefill_tokens", "must be at least 1"),
        ("[latency.targets.\"a b\"]\nthreads = 2", "prefill_us", "latency.targets", "letters"),
        ("[latency.targets.a]\nthreads = 0", "prefill_us", "latency.targets.a.threads", "1, got 0"),
        ("[latency.targets.a]\nthread = 2", "prefill_us", "latency.targets.a.thread", "threads"),
        ("[latency.targets.a]", "prefill_us", "latency.targets.a", "just as [latency] is"),
        (
            "[latency.targets.a]\ndtype = \"fp8\"",
            "prefill_us",
            "latency.targets.a.dtype",
            "GPU only",
        ),
        (
            "[latency.targets.a]\ndevice = \"cuda\"\ndtype = \"fp8\"",
            "prefill_us",
            "latency.targets.a.prefill_tokens",
            "must be 0 with `dtype = \"fp8\"` on a GPU",
        ),
        (
            "[latency.targets.a]\ndevice = \"cuda\"",
            "prefill_us",
            "latency.targets.a.dtype",
            "must be \"bf16\", \"int8\" or \"fp8\" on a GPU",
        ),
    ] {
        let error = with(targets, objective).expect_err(targets);
        assert_eq!(error.key, key, "{targets}: {error}");
        assert!(error.message.contains(message), "{targets}: {error}");
    }
    let eight_bits =
        "[latency.targets.a]\ndevice = \"cuda\"\ndtype = \"int8\"\nprefill_tokens = 0\n";
    assert!(with(eight_bits, "decode_us.a").is_ok(), "decode steps of one sequence");
    for (batch, key) in [("throughput_batch", 8), ("memory_budget_mb", 2000)]
        .map(|(key, n)| (format!("{key} = {n}"), key))
    {
        let main = eight_bits.replace("[latency.targets.a]", &batch);
        let text = TEMPLATE
            .replace("device = \"cpu\"                          # default \"cpu\"; or", "#")
            .replace("dtype = \"fp32\"", &format!("{main}#"))
            .replace("prefill_tokens = 512", "#");
        let error = CampaignFile::parse(&text).expect_err("batches are not timed");
        assert_eq!(error.key, format!("latency.{key}"), "{error}");
        assert!(error.message.contains("batches, which a GPU does not time in int8"), "{error}");
    }
    // A limit on one stands in quotes, and is pointed at.
    let limited = |limit: &str| {
        let text = TEMPLATE
            .replace("[search]\n", &format!("{server}\n[search]\n"))
            .replace("[search.limits] ", &format!("[search.limits]\n{limit}\n#"));
        (CampaignFile::parse(&text), text)
    };
    let (file, _) = limited("\"decode_us.server\" = 90.0");
    assert!(file.expect("it is right").limits().names().any(|name| name == "decode_us.server"));
    let (error, text) = limited("\"decode_us.server\" = -1.0");
    let error = error.expect_err("below 0");
    assert_eq!(error.key, "search.limits.decode_us.server");
    assert_eq!(&text[error.span], "-1.0");
}

#[test]
fn tasks_are_checked_and_name_their_values() {
    let with = |tasks: &str, objective: &str| {
        CampaignFile::parse(
            &TEMPLATE
                .replace("\"bits_per_byte\", ", &format!("\"{objective}\", "))
                .replace("[latency]", &format!("{tasks}\n[latency]")),
        )
    };
    let mqar = "[[tasks]]\nkind = \"mqar\"\nextrapolate = [2]\n";
    for objective in
        ["mqar_error", "mqar_accuracy", "mqar_x2_error", "tasks_error", "bits_per_byte"]
    {
        assert!(with(mqar, objective).is_ok(), "{objective}");
    }
    for (tasks, objective, key) in [
        (mqar, "s3_error", "search.objectives.0"),
        ("", "tasks_error", "search.objectives.0"),
        ("[[tasks]]\nkind = \"mqra\"", "bits_per_byte", "tasks.0.kind"),
        ("[[tasks]]\nkind = \"mqar\"\nitems = 33", "bits_per_byte", "tasks.0.symbols"),
        (
            "[[tasks]]\nkind = \"mqar\"\nsequence_length = 23",
            "bits_per_byte",
            "tasks.0.sequence_length",
        ),
        ("[[tasks]]\nkind = \"s3\"\nextrapolate = [2, 2]", "bits_per_byte", "tasks.0.extrapolate"),
        ("[[tasks]]\nkind = \"s3\"\nname = \"S 3\"", "bits_per_byte", "tasks.0.name"),
        ("[[tasks]]\nkind = \"s3\"\n[[tasks]]\nkind = \"s3\"", "bits_per_byte", "tasks.1.kind"),
    ] {
        let error = with(tasks, objective).expect_err(tasks);
        assert_eq!(error.key, key, "{error}");
    }
}

/// Tasks, no text.
const TASKS_ALONE: &str = "name = \"tasks\"\n[space]\nd_model = [64]\ndepth = { min = 2, max = 6 }\n\
    [space.mixers.gdn]\n[[tasks]]\nkind = \"parity\"\ntokens = 5000\n[[tasks]]\nkind = \"s3\"\ntokens = 3000\n\
    [search]\nobjectives = [\"parity_error\", \"decode_us\"]\n";

#[test]
fn tasks_alone_need_no_text() {
    let file = CampaignFile::parse(TASKS_ALONE).expect("tasks are enough");
    assert_eq!((file.data.as_ref(), file.tokens()), (None, 8000));
    let text = toml::to_string(&file).expect("a campaign file is TOML");
    assert_eq!(CampaignFile::parse(&text), Ok(file));
    let with_rungs = |rungs: &str| {
        CampaignFile::parse(&TASKS_ALONE.replace("[search]", &format!("[search]\nrungs = {rungs}")))
    };
    assert!(with_rungs("[100, 7999]").is_ok(), "rungs count the tokens of all tasks");
    for (error, key, message) in [
        (
            CampaignFile::parse(&TASKS_ALONE.replace("parity_error", "bits_per_byte")),
            "search.objectives.0",
            "measured on text, and there is no [data]",
        ),
        (
            CampaignFile::parse(TASKS_ALONE.split("[search]").next().expect("a beginning")),
            "search.objectives.0",
            "measured on text, and there is no [data]",
        ),
        (
            CampaignFile::parse(TASKS_ALONE.split("[[tasks]]").next().expect("a beginning")),
            "data",
            "there are no [[tasks]]",
        ),
        (with_rungs("[8000]"), "search.rungs.0", "below the tokens of all tasks = 8000"),
    ] {
        let error = error.expect_err(message);
        assert_eq!(error.key, key, "{error}");
        assert!(error.message.contains(message), "{error}");
    }
    let own = "[search]\n[evaluator]\ncommand = \"python my_trainer.py\"\n";
    let own = TASKS_ALONE.split("[[tasks]]").next().expect("a beginning").to_owned() + own;
    let own = CampaignFile::parse(&own).expect("an own evaluator has its own data");
    assert_eq!(own.tokens(), own.training.tokens);
}

#[test]
fn broken_toml_and_missing_sections_are_pointed_at() {
    let error = error("seed = 0 ", "seed = = 0 ");
    assert!(error.message.starts_with("not TOML"), "{error}");
    assert!(error.to_string().starts_with("line 13, column 8: not TOML"), "{error}");
    let missing = CampaignFile::parse("name = \"x\"\n").expect_err("no space, no data");
    assert_eq!((missing.key.as_str(), missing.line), ("space", 1));
    let headed = TEMPLATE.split_once("[space]").expect("a section of the template").1;
    let headed = CampaignFile::parse(&format!("[space]{headed}")).expect_err("no name");
    assert_eq!((headed.key.as_str(), headed.line), ("name", 1));
    let empty = CampaignFile::parse("").expect_err("nothing at all");
    assert_eq!((empty.key.as_str(), empty.line, empty.column), ("name", 1, 1));
    let stages = TEMPLATE.replace("\"none\", ", "").replace(
        "# The text that",
        "[[space.stages]]\nrepeat = { min = 2, max = 1 }\n# The text that",
    );
    let stages = CampaignFile::parse(&stages).expect_err("an empty range");
    assert_eq!(stages.key, "space.stages.0.repeat");
}

#[test]
fn a_file_written_by_serde_reads_back() {
    let file = CampaignFile::parse(TEMPLATE).expect("the template is a campaign file");
    let text = toml::to_string(&file).expect("a campaign file is TOML");
    assert_eq!(CampaignFile::parse(&text).as_ref(), Ok(&file), "{text}");
    let json = serde_json::to_string(&file).expect("a campaign file is JSON");
    assert_eq!(serde_json::from_str::<CampaignFile>(&json).expect("its own JSON"), file);
}

proptest! {
    /// Whatever a hand that slips makes of the file: an answer, and a place inside the text.
    #[test]
    fn damaged_files_are_pointed_at(from in any::<prop::sample::Index>(), length in 0..40_usize, put in "[\\[\\]{}=\"0-9a-z¾. \n#]{0,3}") {
        let characters: Vec<char> = TEMPLATE.chars().collect();
        let from = from.index(characters.len());
        let to = (from + length).min(characters.len());
        let text: String = characters[..from].iter().copied().chain(put.chars()).chain(characters[to..].iter().copied()).collect();
        if let Err(error) = CampaignFile::parse(&text) {
            prop_assert!(text.get(error.span.clone()).is_some(), "{error} at {:?}", error.span);
            prop_assert!(!error.message.is_empty() && error.line <= text.split('\n').count());
        }
    }
}

#[test]
fn the_tokens_that_count_are_four_times_a_proxys_where_rungs_tell_how_losses_fall() {
    let with = |rungs: &str, target: &str| {
        let text = TEMPLATE.replacen("[training]\n", &format!("[training]\n{target}\n"), 1);
        CampaignFile::parse(&text.replacen("[search]\n", &format!("[search]\n{rungs}\n"), 1))
    };
    let rungs = "rungs = [65_536]";
    for (rungs, target, expected) in [
        ("", "", 262_144),
        (rungs, "", 1_048_576),
        (rungs, "target_tokens = 262_144", 262_144),
        (rungs, "target_tokens = 4_194_304", 4_194_304),
    ] {
        assert_eq!(with(rungs, target).expect("it is a campaign").target_tokens(), expected);
    }
    for (rungs, target, message) in [
        (rungs, "target_tokens = 262_143", "at least what a proxy is trained on, 262144"),
        ("", "target_tokens = 262_145", "only `search.rungs` tell how losses fall"),
    ] {
        let error = with(rungs, target).expect_err(message);
        assert_eq!(error.key, "training.target_tokens");
        assert!(error.message.contains(message), "{error}");
    }
}

#[test]
fn every_preset_is_a_campaign_file_and_says_what_it_is_for() {
    let file = |preset: Preset| {
        CampaignFile::parse(preset.text())
            .unwrap_or_else(|error| panic!("{}: {error}", preset.name()))
    };
    for preset in Preset::ALL {
        let text = preset.text();
        // `init` writes these two, where they stand first.
        let place =
            |key: &str| text.find(key).unwrap_or_else(|| panic!("{}: {key}", preset.name()));
        assert!(
            place("\nname = ") < place("\n[space]") && place("\n[data]") < place("\ncorpus = ")
        );
        assert!(text.lines().all(|line| line.chars().count() <= 128), "{}", preset.name());
        assert!(file(preset).space().is_ok());
    }
    assert!(Preset::Demo.text().contains("it is a demonstration"));
    assert!(Preset::Demo.about().contains("demonstration"));
    let serious = file(Preset::Serious);
    let names: Vec<String> = serious.objectives().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["bits_per_byte", "decode_us", "recall_error"]);
    assert!(serious.search.rungs.len() >= 2 && serious.search.hours.is_some());
    assert!(serious.trust.repeats > 0 && serious.trust.longer > 0);
    assert!(serious.target_tokens() > serious.training.tokens);
    let gpu = file(Preset::Gpu);
    let places = [gpu.latency.device, gpu.training.device].map(|device| device.to_string());
    assert_eq!(places, ["cuda:0", "cuda"]);
}

#[test]
fn hours_are_a_number_above_nothing() {
    let with = |hours: &str| {
        CampaignFile::parse(&TEMPLATE.replacen(
            "[search]\n",
            &format!("[search]\nhours = {hours}\n"),
            1,
        ))
    };
    assert_eq!(with("0.25").expect("a quarter").search.hours, Some(0.25));
    for wrong in ["0", "-1", "nan", "inf"] {
        assert_eq!(with(wrong).expect_err(wrong).key, "search.hours");
    }
}

#[test]
fn throughput_has_a_context_and_a_batch_of_its_own() {
    let with = |keys: &str| {
        let text = TEMPLATE.replacen("[latency]\n", &format!("[latency]\n{keys}\n"), 1);
        CampaignFile::parse(&text.replace("\"decode_us\"]", "\"throughput\"]"))
    };
    let stack = "d=64,vocab=256 | attn(h=2,kv=2,k=32)".parse().expect("a stack");
    let under = |keys: &str| {
        let latency = with(keys).expect(keys).latency;
        let throughput = latency.throughput("cpu: one").expect("it is asked for");
        let conditions = throughput.under(&stack).expect("it fits");
        (conditions.batch, conditions.phase)
    };
    let at = |context| Phase::Decode { context };
    assert_eq!(under("throughput_batch = 23"), (23, at(512)));
    assert_eq!(under("throughput_batch = 23\nthroughput_context = 32_768"), (23, at(32_768)));
    assert_eq!(under("memory_budget_mb = 1000\nthroughput_context = 1024"), (64, at(1024)));
    // With a budget it is the largest that is timed.
    assert_eq!(under("memory_budget_mb = 1000\nthroughput_batch = 8"), (8, at(512)));
    let latencies = with("throughput_batch = 4\nthroughput_context = 9").expect("both").latency;
    assert!(
        latencies.latencies("cpu: one").iter().all(|(_, of)| of.phase != at(9) && of.batch == 1)
    );
    for (keys, key) in [
        ("", "latency.memory_budget_mb"),
        ("throughput_context = 9", "latency.memory_budget_mb"),
        ("throughput_batch = 0", "latency.throughput_batch"),
        ("throughput_batch = 4\nthroughput_context = 0", "latency.throughput_context"),
    ] {
        assert_eq!(with(keys).expect_err(keys).key, key);
    }
}
