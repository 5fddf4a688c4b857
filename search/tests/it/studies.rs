//! Published findings as small campaigns.

use std::collections::{BTreeMap, BTreeSet};

use search::config::CampaignFile;
use search::metric::Metric;
use search::statistics::student_95;
use search::studies::{self, Expected, Finding, Made, Study, Terms, Verdict};
use search::tensors::parameters;

fn terms() -> Terms {
    Terms { corpus: Some("corpus.txt".into()), tokens: None, seeds: None, concurrency: 2 }
}

/// Arms whose width only a machine tells are the first arm's, here.
fn stacks(study: &Study) -> BTreeMap<String, String> {
    let stack = |made: &Made| match made {
        Made::Given(stack) => stack.to_string(),
        &Made::AsFast { reference, layers } => {
            study.search(reference, layers, 1.0).ask().expect("it can be built").to_string()
        }
    };
    study.arms.iter().map(|arm| (arm.name.to_owned(), stack(&arm.made))).collect()
}

#[test]
fn every_study_is_a_campaign_that_reports_what_it_judges() {
    let all = studies::studies();
    let names: BTreeSet<&str> = all.iter().map(|study| study.name).collect();
    assert_eq!(names.len(), all.len());
    for study in all {
        let name = study.name;
        assert_eq!(studies::named(name).as_ref(), Some(&study));
        let arms: BTreeSet<&str> = study.arms.iter().map(|arm| arm.name).collect();
        assert_eq!(arms.len(), study.arms.len(), "{name}");
        assert!(matches!(study.arms[0].made, Made::Given(_)), "{name}: others are set beside it");
        let file = study.campaign(stacks(&study), &terms());
        let text = toml::to_string(&file).expect("TOML");
        assert_eq!(CampaignFile::parse(&text).expect(name), file, "{name}");
        assert_eq!(file.data.is_some(), study.reads_text(), "{name}");
        assert_eq!(
            (file.search.evaluations, file.trust.seeds),
            (study.arms.len() as u32, study.seeds)
        );
        let reported: BTreeSet<String> = file
            .tasks
            .iter()
            .flat_map(search::config::TaskConfig::value_names)
            .chain(file.data.iter().flat_map(|_| {
                let longer = file.training.longer_contexts.iter();
                let longer = longer.map(|n| format!("bits_per_byte_x{n}"));
                longer.chain([Metric::BitsPerByte.name().to_owned()]).collect::<Vec<_>>()
            }))
            .chain([Metric::RetrievalSnr.name().to_owned()])
            .collect();
        for Finding { claim, value, of, than, .. } in &study.findings {
            assert!(reported.contains(*value), "{name}: {value} is not reported");
            assert!(arms.contains(of) && arms.contains(than) && of != than, "{name}: {claim}");
        }
    }
}

#[test]
fn arms_that_are_to_be_as_large_are() {
    let of = |study: &Study, name: &str| {
        let arm = study.arms.iter().find(|arm| arm.name == name).expect("an arm");
        let Made::Given(stack) = &arm.made else { panic!("{name} is given") };
        parameters(stack) as f64
    };
    for (study, pairs) in [
        ("gate", vec![("attention", "attention-gated"), ("hybrid", "hybrid-gated")]),
        (
            "hybrids",
            vec![
                ("hybrid-gdn", "gdn"),
                ("hybrid-gdn", "transformer"),
                ("hybrid-gdn", "hybrid-mamba2"),
            ],
        ),
        ("depth", vec![("4-layers", "2-layers-as-large"), ("4-layers", "8-layers-as-large")]),
    ] {
        let study = studies::named(study).expect("a study");
        for (one, other) in pairs {
            let ratio = of(&study, other) / of(&study, one);
            assert!((ratio - 1.0).abs() < 0.02, "{one} and {other}: {ratio}");
        }
    }
    // What else is set beside each other differs in order or positions alone, and has the same weights.
    for study in ["placement", "nope"] {
        let study = studies::named(study).expect("a study");
        let sizes: BTreeSet<u64> =
            study.arms.iter().map(|arm| of(&study, arm.name) as u64).collect();
        assert!(sizes.len() <= study.arms.len() / 2, "{sizes:?}");
    }
}

#[test]
fn a_claim_comes_out_where_its_whole_interval_is_as_claimed() {
    use Expected::{Alike, Less, More};
    use Verdict::{CannotTell, ComesOut, DoesNot};
    let cases: [(Expected, &[f64], Verdict); 13] = [
        (Less, &[-1.0, -1.1, -0.9], ComesOut),
        (Less, &[1.0, 1.1, 0.9], DoesNot),
        (Less, &[-1.0, 1.0, -0.5], CannotTell),
        (More, &[-1.0, -1.1, -0.9], DoesNot),
        (More, &[1.0, 1.1, 0.9], ComesOut),
        (Alike(0.1), &[0.01, -0.01, 0.0], ComesOut),
        (Alike(0.1), &[0.5, 0.51, 0.49], DoesNot),
        (Alike(0.1), &[0.2, -0.2, 0.0], CannotTell),
        // no difference at all is no less, no more, and alike
        (Less, &[0.0, 0.0], CannotTell),
        (More, &[0.0, 0.0], CannotTell),
        (Alike(0.0), &[0.0, 0.0], ComesOut),
        // one seed has no interval
        (Less, &[-1.0], CannotTell),
        (Less, &[], CannotTell),
    ];
    for (expected, differences, verdict) in cases {
        let finding = Finding { claim: "", value: "", of: "", than: "", expected };
        let judgement = finding.judge(differences);
        assert_eq!(judgement.verdict, verdict, "{expected:?} {differences:?}: {judgement:?}");
        assert_eq!(judgement.seeds, differences.len());
        assert_eq!(judgement.mean.is_some(), !differences.is_empty());
    }
    // by hand: 1, 2, 3 have a mean of 2, an error of 1/√3 and t of 4.303
    let finding = Finding { claim: "", value: "", of: "", than: "", expected: More };
    let reach = finding.judge(&[1.0, 2.0, 3.0]).reach.expect("three seeds");
    assert!((reach - 4.303 / 3.0_f64.sqrt()).abs() < 1e-12);
}

#[test]
fn quantiles_of_student_are_those_of_the_tables() {
    for (freedom, expected) in
        [(1, 12.706), (4, 2.776), (10, 2.228), (11, 2.201), (20, 2.086), (60, 2.000), (120, 1.980)]
    {
        assert!((student_95(freedom) - expected).abs() < 6e-4, "{freedom}");
    }
    assert!((1..200).all(|n| student_95(n) > student_95(n + 1)));
}
