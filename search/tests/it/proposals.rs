//! Proposals on a small grid: never twice, the same for the same trials, and better than chance.

use std::collections::HashSet;

use rand::RngExt;
use search::pareto::{Objectives, hypervolume};
use search::proposals::{Algorithm, Domain, Origin, Outcome, Proposer, SearchRng, Trial};
use search::space::{Space, SpaceConfig};
use search::surrogate::Feature;

/// Points with `genes` genes of `choices` choices each.
struct Grid {
    genes: usize,
    choices: u8,
}

impl Domain for Grid {
    type Point = Vec<u8>;
    type Id = Vec<u8>;

    fn id(&self, point: &Vec<u8>) -> Vec<u8> {
        point.clone()
    }

    fn sample(&self, rng: &mut SearchRng) -> Option<Vec<u8>> {
        Some((0..self.genes).map(|_| rng.random_range(0..self.choices)).collect())
    }

    fn mutate(&self, point: &Vec<u8>, rng: &mut SearchRng) -> Option<(Vec<u8>, String)> {
        let gene = rng.random_range(0..self.genes);
        let mut child = point.clone();
        child[gene] = (child[gene] + rng.random_range(1..self.choices)) % self.choices;
        let change = format!("gene {gene} {} → {}", point[gene], child[gene]);
        Some((child, change))
    }

    fn recombine(&self, a: &Vec<u8>, b: &Vec<u8>, rng: &mut SearchRng) -> Option<Vec<u8>> {
        Some(a.iter().zip(b).map(|(x, y)| if rng.random_bool(0.5) { *x } else { *y }).collect())
    }

    fn features(&self) -> Vec<Feature> {
        vec![Feature::Number; self.genes]
    }

    fn encode(&self, point: &Vec<u8>) -> Vec<f64> {
        point.iter().map(|&gene| f64::from(gene) / f64::from(self.choices - 1)).collect()
    }
}

/// Two objectives in conflict: the sum of the genes, and the squared distance from all-highest.
fn evaluate(grid: &Grid, point: &[u8]) -> Objectives {
    let sum: f64 = point.iter().map(|&g| f64::from(g)).sum();
    let missing = |g: u8| f64::from(grid.choices - 1 - g).powi(2);
    let distance: f64 = point.iter().enumerate().map(|(i, &g)| missing(g) * (1.0 + i as f64)).sum();
    Objectives::new(vec![sum, distance]).expect("finite")
}

fn proposer(algorithm: Algorithm, seed: u64) -> Proposer<Vec<u8>> {
    Proposer::new(algorithm, seed, 10, Vec::new())
}

/// Runs `count` proposals with one in five left pending for a while, failing or infeasible.
fn run(grid: &Grid, mut proposer: Proposer<Vec<u8>>, count: u32) -> Vec<Trial<Vec<u8>>> {
    let mut trials: Vec<Trial<Vec<u8>>> = Vec::new();
    for number in 1..=count {
        let point = proposer.propose(grid, number, &trials).expect("the grid is large").point;
        let outcome = match number % 15 {
            3 => Outcome::Failed,
            6 => Outcome::Infeasible,
            9 => Outcome::Pending,
            _ => Outcome::Known(evaluate(grid, &point)),
        };
        trials.push(Trial { number, point, outcome });
    }
    trials
}

fn volume(trials: &[Trial<Vec<u8>>]) -> f64 {
    let known: Vec<Objectives> = trials
        .iter()
        .filter_map(|t| if let Outcome::Known(o) = &t.outcome { Some(o.clone()) } else { None })
        .collect();
    hypervolume(&known, &[24.0, 200.0])
}

#[test]
fn nothing_is_proposed_twice_and_equal_trials_give_equal_proposals() {
    let grid = Grid { genes: 6, choices: 5 };
    for algorithm in Algorithm::ALL {
        let trials = run(&grid, proposer(algorithm, 7), 60);
        let distinct: HashSet<&Vec<u8>> = trials.iter().map(|t| &t.point).collect();
        assert_eq!(distinct.len(), trials.len(), "{}", algorithm.name());
        assert_eq!(trials, run(&grid, proposer(algorithm, 7), 60), "{}", algorithm.name());
        assert_ne!(trials, run(&grid, proposer(algorithm, 8), 60), "{}", algorithm.name());
        // No memory: the last proposal again, from the trials alone.
        let again =
            proposer(algorithm, 7).propose(&grid, 60, &trials[..59]).expect("not exhausted");
        assert_eq!(again.point, trials[59].point, "{}", algorithm.name());
    }
}

#[test]
fn every_point_of_a_small_domain_is_proposed_before_it_is_exhausted() {
    let grid = Grid { genes: 3, choices: 3 };
    for algorithm in Algorithm::ALL {
        let trials = run(&grid, proposer(algorithm, 1), 27);
        assert_eq!(trials.len(), 27);
        let exhausted = proposer(algorithm, 1).propose(&grid, 28, &trials).expect_err("27 points");
        assert_eq!(exhausted.seen, 27);
    }
}

#[test]
fn references_come_first_and_once() {
    let grid = Grid { genes: 3, choices: 3 };
    let mut proposer = proposer(Algorithm::Evolution, 1);
    proposer.references = vec![
        ("low".to_owned(), vec![0, 0, 0]),
        ("the same".to_owned(), vec![0, 0, 0]),
        ("high".to_owned(), vec![2, 2, 2]),
    ];
    let mut trials = Vec::new();
    let mut origins = Vec::new();
    for number in 1..=4 {
        let proposal = proposer.propose(&grid, number, &trials).expect("not exhausted");
        origins.push(proposal.origin);
        trials.push(Trial { number, point: proposal.point, outcome: Outcome::Pending });
    }
    let reference = |name: &str| Origin::Reference(name.to_owned());
    assert_eq!(origins, [reference("low"), reference("high"), Origin::Random, Origin::Random]);
}

#[test]
fn each_algorithm_finds_a_larger_volume_than_chance() {
    let grid = Grid { genes: 8, choices: 5 };
    let mean = |algorithm| {
        (0..4).map(|seed| volume(&run(&grid, proposer(algorithm, seed), 100))).sum::<f64>() / 4.0
    };
    let random = mean(Algorithm::Random);
    for algorithm in Algorithm::ALL.into_iter().filter(|&a| a != Algorithm::Random) {
        let volume = mean(algorithm);
        assert!(
            volume > 1.04 * random,
            "{}: {volume} against {random} by chance",
            algorithm.name()
        );
    }
}

#[test]
fn three_objectives_are_no_trouble_for_the_surrogate() {
    let grid = Grid { genes: 7, choices: 4 };
    let volume = |algorithm| {
        let mut proposer = proposer(algorithm, 2);
        let mut trials: Vec<Trial<Vec<u8>>> = Vec::new();
        let mut known = Vec::new();
        for number in 1..=50 {
            let point = proposer.propose(&grid, number, &trials).expect("the grid is large").point;
            let two = evaluate(&grid, &point);
            let rough: u8 = point.windows(2).map(|w| w[0].abs_diff(w[1])).sum();
            let values = [two.values(), &[f64::from(rough)]].concat();
            let objectives = Objectives::new(values).expect("finite");
            known.push(objectives.clone());
            trials.push(Trial { number, point, outcome: Outcome::Known(objectives) });
        }
        hypervolume(&known, &[21.0, 150.0, 10.0])
    };
    let (surrogate, random) = (volume(Algorithm::Surrogate), volume(Algorithm::Random));
    assert!(surrogate > 1.2 * random, "{surrogate} against {random} by chance");
}

#[test]
fn workers_at_once_get_different_points() {
    let grid = Grid { genes: 6, choices: 5 };
    let mut proposer = proposer(Algorithm::Surrogate, 3);
    let mut trials = run(&grid, self::proposer(Algorithm::Surrogate, 3), 40);
    for number in 41..=48 {
        let point = proposer.propose(&grid, number, &trials).expect("the grid is large").point;
        assert!(trials.iter().all(|t| t.point != point));
        trials.push(Trial { number, point, outcome: Outcome::Pending });
    }
}

/// Proposals in parts of so many, each part evaluated before the next but for `under_way` that never come back.
fn in_parts(
    grid: &Grid,
    seed: u64,
    under_way: u32,
    part: usize,
    count: usize,
) -> Vec<Trial<Vec<u8>>> {
    let mut proposer = proposer(Algorithm::Surrogate, seed);
    let mut trials = run(grid, self::proposer(Algorithm::Random, seed), 20);
    while trials.len() < count {
        let first = trials.len() as u32 + 1;
        let (proposals, end) =
            proposer.propose_many(grid, first, part, &mut trials, &|_| Vec::new());
        assert_eq!((proposals.len(), end), (part, None));
        for trial in trials.iter_mut().filter(|t| t.number >= first.max(20 + under_way + 1)) {
            trial.outcome = Outcome::Known(evaluate(grid, &trial.point));
        }
    }
    trials
}

#[test]
fn a_few_proposals_in_one_go_are_those_one_by_one() {
    let grid = Grid { genes: 6, choices: 5 };
    let before = run(&grid, proposer(Algorithm::Surrogate, 4), 40);
    for algorithm in Algorithm::ALL {
        let mut together = before.clone();
        let mut many = proposer(algorithm, 4);
        let (proposals, end) = many.propose_many(&grid, 41, 8, &mut together, &|_| Vec::new());
        assert_eq!((proposals.len(), end, together.len()), (8, None, 48));
        let mut trials = before.clone();
        let mut one = proposer(algorithm, 4);
        for number in 41..=48 {
            let point = one.propose(&grid, number, &trials).expect("the grid is large").point;
            trials.push(Trial { number, point, outcome: Outcome::Pending });
        }
        assert_eq!(together, trials, "{}", algorithm.name());
    }
}

#[test]
fn many_proposals_in_one_go_are_all_new_and_need_no_memory() {
    let grid = Grid { genes: 8, choices: 5 };
    let trials = in_parts(&grid, 5, 300, 64, 500);
    let distinct: HashSet<&Vec<u8>> = trials.iter().map(|t| &t.point).collect();
    assert_eq!(distinct.len(), trials.len());
    let pending = trials.iter().filter(|t| t.outcome == Outcome::Pending).count();
    assert!(pending >= 300, "{pending}");
    let last = (trials.len() / 64) * 64 + 20 - 64;
    let mut again = trials[..last].to_vec();
    let mut proposer = proposer(Algorithm::Surrogate, 5);
    proposer.propose_many(&grid, last as u32 + 1, 64, &mut again, &|_| Vec::new());
    let points = |trials: &[Trial<Vec<u8>>]| -> Vec<Vec<u8>> {
        trials[last..last + 64].iter().map(|t| t.point.clone()).collect()
    };
    assert_eq!(points(&again), points(&trials));
}

#[test]
fn what_is_left_of_a_small_domain_is_proposed_in_one_go() {
    let grid = Grid { genes: 4, choices: 3 };
    let mut trials = run(&grid, proposer(Algorithm::Random, 6), 15);
    let mut proposer = proposer(Algorithm::Surrogate, 6);
    let (proposals, end) = proposer.propose_many(&grid, 16, 100, &mut trials, &|_| Vec::new());
    assert_eq!((proposals.len(), trials.len()), (66, 81));
    assert_eq!(end.map(|end| end.seen), Some(81));
}

#[test]
fn parts_of_many_find_more_than_chance() {
    let grid = Grid { genes: 8, choices: 5 };
    let (mut surrogate, mut random) = (0.0, 0.0);
    for seed in 0..4 {
        surrogate += volume(&in_parts(&grid, seed, 0, 40, 140));
        random += volume(&run(&grid, proposer(Algorithm::Random, seed), 140));
    }
    assert!(surrogate > 1.04 * random, "{surrogate} against {random} by chance");
}

#[test]
fn a_space_of_architectures_is_a_domain() {
    let config: SpaceConfig = toml::from_str(
        r"
        d_model = [64, 128]
        depth = { min = 2, max = 6 }
        [mixers.attn]
        head_width = [32]
        [mixers.gdn]
        key_width = [16, 32]
        ",
    )
    .expect("valid TOML");
    let space = Space::new(&config).expect("a possible space");
    for algorithm in Algorithm::ALL {
        let mut proposer = Proposer::new(algorithm, 3, 8, Vec::new());
        let mut trials: Vec<Trial<search::Architecture>> = Vec::new();
        for number in 1..=40 {
            let point = proposer.propose(&space, number, &trials).expect("a large space").point;
            assert!(space.contains(&point).is_ok(), "{point}");
            let parameters = search::tensors::parameters(&point) as f64;
            let values = vec![parameters, -(point.layers().len() as f64)];
            let outcome = Outcome::Known(Objectives::new(values).expect("finite"));
            trials.push(Trial { number, point, outcome });
        }
        let ids: HashSet<_> = trials.iter().map(|t| t.point.id()).collect();
        assert_eq!(ids.len(), 40, "{}", algorithm.name());
    }
}

#[test]
fn values_that_are_finite_and_absurd_do_not_hold_the_search_up() {
    let grid = Grid { genes: 6, choices: 5 };
    let absurd: [&dyn Fn(f64) -> f64; 6] = [
        &|x| if x > 0.5 { f64::MAX } else { -f64::MAX },
        &|x| if x > 0.5 { 1e308 } else { -1e300 },
        &|x| x * 1e-310,
        &|x| if x > 0.7 { 5e-324 } else { 0.0 },
        &|x| 1e16 + x,
        &|x| -(x * 700.0).exp(),
    ];
    for algorithm in Algorithm::ALL {
        for objectives in 1..=3 {
            for (index, value) in absurd.iter().enumerate() {
                let mut proposer = proposer(algorithm, 3);
                let mut trials: Vec<Trial<Vec<u8>>> = Vec::new();
                for number in 1..=14 {
                    let point =
                        proposer.propose(&grid, number, &trials).expect("a large grid").point;
                    let x = |gene: usize| f64::from(point[gene]) / 4.0;
                    let values: Vec<f64> = (0..objectives).map(|j| value(x(j))).collect();
                    let known = Objectives::new(values.clone()).expect("finite");
                    let outcome = if number % 4 == 0 {
                        Outcome::Estimated {
                            objectives: known,
                            deviations: vec![f64::MAX; objectives],
                        }
                    } else {
                        Outcome::Known(known)
                    };
                    trials.push(Trial { number, point, outcome });
                }
                assert_eq!(trials.len(), 14, "{} {index}", algorithm.name());
            }
        }
    }
}
