//! Spaces of plain parameters: conditions hold in every point, impossible ones are named.

use std::collections::HashSet;

use rand::SeedableRng;
use search::parameters::{Parameter, ParameterKind, ParameterSpace, Setting};
use search::proposals::{Domain, SearchRng};

const SPACE: &str = r#"
[[parameter]]
name = "optimizer"
type = "categorical"
choices = ["sgd", "adam"]
[[parameter]]
name = "momentum"
type = "ordinal"
choices = ["0", "0.9", "0.99"]
when = { parameter = "optimizer", is = ["sgd"] }
[[parameter]]
name = "layers"
type = "integer"
low = 1
high = 4
[[parameter]]
name = "width"
type = "log-integer"
low = 8
high = 1024
"#;

#[derive(serde::Deserialize)]
struct File {
    parameter: Vec<Parameter>,
}

fn parse(text: &str) -> Vec<Parameter> {
    toml::from_str::<File>(text).expect("valid TOML").parameter
}

fn space() -> ParameterSpace {
    ParameterSpace::new(parse(SPACE)).expect("a possible space")
}

#[test]
fn every_move_keeps_ranges_and_conditions() {
    let space = space();
    let mut rng = SearchRng::seed_from_u64(4);
    let mut point = space.sample(&mut rng).expect("not empty");
    let mut narrow = 0;
    for _ in 0..2000 {
        let (mutant, change) = space.mutate(&point, &mut rng).expect("has neighbours");
        assert_ne!(mutant, point, "{change}");
        let other = space.sample(&mut rng).expect("not empty");
        let child = space.recombine(&mutant, &other, &mut rng).expect("always possible");
        for p in [&mutant, &other, &child] {
            assert!((0..2).contains(&p[0]) && (1..=4).contains(&p[2]), "{p:?}");
            assert!((8..=1024).contains(&p[3]), "{p:?}");
            assert!(if p[0] == 0 { (0..3).contains(&p[1]) } else { p[1] == 0 }, "{p:?}");
            let row = space.encode(p);
            assert_eq!(row.len(), space.features().len());
            assert!(row.iter().skip(1).all(|c| (0.0..=1.0).contains(c)), "{row:?}");
        }
        narrow += u32::from(other[3] < 91);
        point = child;
    }
    assert!((900..1100).contains(&narrow), "half of 2000 are under the geometric mean: {narrow}");
}

#[test]
fn all_points_are_listed_once() {
    let mut parameters = parse(SPACE);
    parameters.pop();
    let space = ParameterSpace::new(parameters).expect("a possible space");
    let all = space.enumerate(1000).expect("it is small");
    assert_eq!(all.len(), (3 + 1) * 4);
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
    assert_eq!(space.enumerate(15), None);
    assert_eq!(self::space().enumerate(1000), None);
}

#[test]
fn a_change_says_what_it_is() {
    let space = space();
    let mut rng = SearchRng::seed_from_u64(4);
    let (_, change) = space.mutate(&vec![1, 0, 2, 64], &mut rng).expect("has neighbours");
    let names = ["optimizer adam → sgd", "layers 2 → ", "width 64 → "];
    assert!(names.iter().any(|name| change.starts_with(name)), "{change}");
}

#[test]
fn impossible_parameters_are_named() {
    let refused = |change: fn(String) -> String| {
        ParameterSpace::new(parse(&change(SPACE.to_owned()))).expect_err("impossible").to_string()
    };
    assert_eq!(
        refused(|s| s.replace("\"layers\"", "\"momentum\"")),
        "parameter `momentum`: the name is taken; each parameter needs its own"
    );
    assert_eq!(
        refused(|s| s.replace("low = 8", "low = 0")),
        "parameter `width`: a logarithmic scale begins at 1 or above, got 0"
    );
    assert_eq!(
        refused(|s| s.replace("high = 4", "high = 0")),
        "parameter `layers`: low must be at most high, got 1 and 0"
    );
    assert_eq!(
        refused(|s| s.replace("is = [\"sgd\"]", "is = [\"lion\"]")),
        "parameter `momentum`: `lion` is not a choice of `optimizer`"
    );
    assert_eq!(
        refused(|s| s.replace("{ parameter = \"optimizer\"", "{ parameter = \"width\"")),
        "parameter `momentum`: its condition names `width`, which must stand before it"
    );
}

#[test]
fn places_that_share_their_choices_are_tallied() {
    let parameter = |name: &str| Parameter {
        name: name.to_owned(),
        kind: ParameterKind::Categorical {
            choices: ["none", "skip", "conv"].map(|word| Setting::Word(word.to_owned())).to_vec(),
        },
        when: None,
    };
    let cell = ["a", "b", "c", "d"].map(parameter).to_vec();
    let space = ParameterSpace::new(cell).expect("a possible space");
    assert_eq!(space.encode(&vec![2, 0, 2, 1]), [2.0, 0.0, 2.0, 1.0, 0.25, 0.25, 0.5]);
    assert_eq!(space.features().len(), 7);
    assert_eq!(self::space().features().len(), 5, "no family: one feature each, and a condition");
}

#[test]
fn ranges_that_doubles_cannot_tell_apart_are_refused_for_that() {
    let range = |kind: &str, low: i64, high: i64| {
        let text =
            format!("[[parameter]]\nname = \"x\"\ntype = \"{kind}\"\nlow = {low}\nhigh = {high}\n");
        ParameterSpace::new(parse(&text)).map_err(|error| error.what)
    };
    let two_53 = 1_i64 << 53;
    assert!(range("integer", i64::MAX - 7, i64::MAX).is_ok());
    assert!(range("log-integer", two_53 - 1, two_53).is_ok());
    let wide = range("integer", i64::MIN, i64::MAX).expect_err("too wide");
    assert!(wide.contains("2^53 apart"), "{wide}");
    let far = range("log-integer", two_53, two_53 + 1).expect_err("one double");
    assert!(far.contains("ends at 2^53"), "{far}");
    let order = range("integer", 2, 1).expect_err("the wrong way round");
    assert!(order.contains("low must be at most high"), "{order}");
    // Draws and steps end wherever the range lies.
    for space in
        [range("integer", i64::MAX - 7, i64::MAX), range("log-integer", two_53 - 1, two_53)]
    {
        let space = space.expect("a possible range");
        let mut rng = SearchRng::seed_from_u64(1);
        for _ in 0..100 {
            let point = space.sample(&mut rng).expect("not empty");
            let (child, _) = space.mutate(&point, &mut rng).expect("it has neighbours");
            assert!(space.encode(&child).iter().all(|x| x.is_finite()), "{child:?}");
        }
    }
}
