//! The law of depth and width on losses whose law is known.

use rand::{RngExt, SeedableRng};
use search::campaign::LatencyTable;
use search::latency::{Conditions, Dtype, LatencyEntry, Phase, Timing, keys};
use search::law::{Fit, Law, Observation, Power, Unidentified, choose, speeds};
use search::proposals::SearchRng;

use crate::stacks::uniform;

const TRUE: Law = Law {
    floor: 1.2,
    depth: Power { factor: 0.6, exponent: 0.9 },
    width: Power { factor: 14.0, exponent: 0.7 },
    tokens: None,
};

fn normal(rng: &mut SearchRng) -> f64 {
    (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0
}

/// Stacks of every depth and width, each with an error of its own.
fn grid(law: &Law, noise: f64, lengths: &[u64], rng: &mut SearchRng) -> Vec<Observation> {
    let mut observations = Vec::new();
    let mut stack = 0;
    for depth in [1, 2, 3, 4, 6, 8] {
        for width in [32, 64, 96, 128, 192] {
            stack += 1;
            let own = noise * normal(rng);
            for &tokens in lengths {
                let loss = law.at(depth.into(), width.into(), tokens as f64) + own;
                observations.push(Observation { stack, depth, width, tokens, loss });
            }
        }
    }
    observations
}

#[test]
fn without_noise_the_law_is_found_exactly() {
    let mut rng = SearchRng::seed_from_u64(1);
    let with_data = Law { tokens: Some(Power { factor: 300.0, exponent: 0.5 }), ..TRUE };
    for (law, lengths) in [(TRUE, &[1_000_000][..]), (with_data, &[100_000, 400_000, 2_000_000])] {
        let observations = grid(&law, 0.0, lengths, &mut rng);
        let fit = Fit::new(&observations, 50, 0).expect("a full grid");
        for o in &observations {
            let found = fit.law.at(o.depth.into(), o.width.into(), o.tokens as f64);
            assert!((found - o.loss).abs() < 1e-4, "{o:?}: {found}");
        }
        assert!((fit.law.depth.exponent - law.depth.exponent).abs() < 0.02, "{:?}", fit.law);
        assert!((fit.law.width.exponent - law.width.exponent).abs() < 0.02, "{:?}", fit.law);
        assert!(fit.explained > 0.9999 && fit.deviation < 1e-3);
        assert_eq!(fit.law.tokens.is_some(), lengths.len() == 3);
    }
}

#[test]
fn bands_cover_the_truth_about_as_often_as_they_say() {
    let mut rng = SearchRng::seed_from_u64(2);
    let worlds = 60;
    let (mut inside, mut beyond, mut asked) = (0, 0, 0);
    for world in 0..worlds {
        let observations = grid(&TRUE, 0.02, &[1_000_000], &mut rng);
        let fit = Fit::new(&observations, 200, world).expect("a full grid");
        for (depth, width) in [(1.0, 32.0), (4.0, 96.0), (8.0, 192.0), (5.0, 160.0)] {
            let (low, high) = fit.band(|law| law.at(depth, width, 1e6));
            let truth = TRUE.at(depth, width, 1e6);
            asked += 1;
            inside += u32::from((low..=high).contains(&truth));
            beyond += u32::from(high - low > 0.1);
        }
    }
    let covered = f64::from(inside) / f64::from(asked);
    assert!((0.9..=0.99).contains(&covered), "bands of 95 % cover {covered}");
    assert_eq!(beyond, 0, "a band five times as wide as the noise says nothing");
}

#[test]
fn trainings_of_one_stack_are_one_stack() {
    // Five seeds that differ by next to nothing are no five stacks: the band stays as wide.
    let mut rng = SearchRng::seed_from_u64(3);
    let once = grid(&TRUE, 0.02, &[1_000_000], &mut rng);
    let five: Vec<Observation> = once
        .iter()
        .flat_map(|o| (0..5).map(move |i| Observation { loss: o.loss + 1e-5 * f64::from(i), ..*o }))
        .collect();
    let width = |observations: &[Observation]| {
        let fit = Fit::new(observations, 300, 0).expect("a full grid");
        let (low, high) = fit.band(|law| law.at(4.0, 96.0, 1e6));
        high - low
    };
    let ratio = width(&five) / width(&once);
    assert!((0.7..1.2).contains(&ratio), "{ratio}");
}

#[test]
fn what_does_not_identify_the_law_is_refused() {
    let mut rng = SearchRng::seed_from_u64(4);
    let all = grid(&TRUE, 0.01, &[1_000_000], &mut rng);
    let fit = |observations: &[Observation]| Fit::new(observations, 40, 0).expect_err("refused");
    let kept = |is: &dyn Fn(&Observation) -> bool| -> Vec<Observation> {
        all.iter().copied().filter(|o| is(o)).collect()
    };
    assert!(matches!(fit(&all[..7]), Unidentified::TooFew { found: 7, unknowns: 5, least: 8 }));
    assert!(matches!(fit(&[]), Unidentified::TooFew { found: 0, .. }));
    let shallow = fit(&kept(&|o| o.depth < 3));
    assert!(matches!(shallow, Unidentified::Levels { found: 2, key: "space.depth", .. }));
    let narrow = fit(&kept(&|o| o.width < 96));
    assert!(matches!(narrow, Unidentified::Levels { found: 2, key: "space.d_model", .. }));
    let together: Vec<Observation> = (1..12)
        .map(|n| Observation {
            stack: n,
            depth: n,
            width: 16 * n,
            tokens: 1,
            loss: 2.0 + 1.0 / f64::from(n),
        })
        .collect();
    assert!(matches!(fit(&together), Unidentified::Together { .. }));
    let chance: Vec<Observation> =
        all.iter().map(|o| Observation { loss: 2.0 + 0.1 * normal(&mut rng), ..*o }).collect();
    assert!(matches!(fit(&chance), Unidentified::Chance { .. }));
    for refused in [fit(&all[..7]), shallow, narrow, fit(&together), fit(&chance)] {
        assert!(refused.to_string().len() > 60, "says what to do: {refused}");
    }
}

#[test]
fn the_same_seed_gives_the_same_bands() {
    let mut rng = SearchRng::seed_from_u64(5);
    let observations = grid(&TRUE, 0.02, &[1_000_000], &mut rng);
    let fit = |seed| Fit::new(&observations, 60, seed).expect("a full grid");
    assert_eq!(fit(1), fit(1));
    assert_ne!(fit(1).draws, fit(2).draws);
}

#[test]
fn a_budget_is_kept_and_the_best_within_it_comes_first() {
    // Layers of a width take as long as the table says.
    let conditions = Conditions {
        device: "cpu: simulated".to_owned(),
        dtype: Dtype::F32,
        batch: 1,
        threads: 1,
        phase: Phase::Decode { context: 128 },
    };
    let stacks = [uniform(0, 2), uniform(0, 4)];
    let mut table = LatencyTable::default();
    for key in stacks.iter().flat_map(|stack| keys(stack, &conditions)) {
        let is_head = key.part.to_string().contains("head");
        let timing = Timing {
            median_us: if is_head { 4.0 } else { 1.5 },
            spread_us: 0.1,
            samples: 9,
            other_load: 0.0,
            kernels: "1".to_owned(),
            millijoules: None,
        };
        table.insert(LatencyEntry { key, timing });
    }
    let speeds = speeds(stacks.iter(), &table, &conditions);
    let [speed] = speeds.as_slice() else { panic!("{speeds:?}") };
    // Mixer and FFN.
    assert_eq!((speed.layer_us, speed.head_us, speed.stacks), (3.0, 4.0, 2));
    assert_eq!(speed.deviation_us, Some(0.0));

    let mut rng = SearchRng::seed_from_u64(6);
    let fit = Fit::new(&grid(&TRUE, 0.01, &[1_000_000], &mut rng), 100, 0).expect("a full grid");
    let choices = choose(&fit, &speeds, 1..=8, 1_000_000, 20.0);
    // 4 + 3 D ≤ 20: five depths of one width, the deepest first.
    let depths: Vec<u32> = choices.iter().map(|choice| choice.depth).collect();
    assert_eq!(depths, [5, 4, 3, 2, 1]);
    assert!(
        choices.iter().all(|c| c.latency_us <= 20.0 && c.band.0 <= c.loss && c.loss <= c.band.1)
    );
    assert!((choices[0].best_in - 1.0).abs() < 1e-12, "more layers are never worse by the law");
    assert_eq!(choose(&fit, &speeds, 1..=8, 1_000_000, 6.0), []);
}
