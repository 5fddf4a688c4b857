//! The model against slow definitions: dense elimination, and random draws.

use rand::{RngExt, SeedableRng};
use search::pareto::{Objectives, hypervolume};
use search::proposals::SearchRng;
use search::surrogate::{
    Encoded, ExpectedImprovement, Feature, GaussianProcess, Hyperparameters, Prediction,
    normal_cdf, normal_pdf,
};

/// A standard normal number, by the sum of twelve.
fn normal(rng: &mut SearchRng) -> f64 {
    (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0
}

fn mixed(count: usize, rng: &mut SearchRng) -> Encoded {
    let mut points = Encoded::new(vec![Feature::Number, Feature::Category, Feature::Number]);
    for _ in 0..count {
        points.push(&[rng.random(), f64::from(rng.random_range(0_u8..4)), rng.random()]);
    }
    points
}

/// Depends on the number and the category, not on the last number.
fn truth(row: &[f64]) -> f64 {
    (4.0 * row[0]).sin() + 0.7 * row[1]
}

#[test]
fn the_normal_distribution_has_its_known_values() {
    for (u, expected) in
        [(0.0, 0.5), (1.959_964, 0.975), (-1.0, 0.158_655_254), (-6.0, 9.865_876_4e-10)]
    {
        let value = normal_cdf(u);
        assert!((value - expected).abs() < 1e-6 * expected, "Φ({u}) = {value}");
    }
    assert!((normal_pdf(0.0) - 0.398_942_280_4).abs() < 1e-9);
}

#[test]
fn a_process_learns_a_function_and_knows_what_it_does_not_know() {
    let mut rng = SearchRng::seed_from_u64(1);
    let seen = mixed(63, &mut rng);
    let values: Vec<f64> = (0..seen.len()).map(|i| truth(seen.row(i))).collect();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let scale =
        (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt();
    let standard: Vec<f64> = values.iter().map(|v| (v - mean) / scale).collect();
    let fitted = Hyperparameters::fit(&seen, &standard, 40);
    assert!(fitted.log_weights[2] < fitted.log_weights[0] - 2.0, "{fitted:?}");
    let process = GaussianProcess::new(seen.clone(), &values, &fitted);

    let unseen = mixed(100, &mut rng);
    let predictions = process.predict(&unseen);
    let mut squares = 0.0;
    for (index, prediction) in predictions.iter().enumerate() {
        squares += (prediction.mean - truth(unseen.row(index))).powi(2);
    }
    let error = (squares / 100.0).sqrt();
    assert!(error < 0.1 * scale, "root mean square error {error}");
    // Sure where it has seen, unsure in a category that it has never seen.
    let mut two = Encoded::new(seen.features.clone());
    two.push(seen.row(0));
    two.push(&[0.5, 9.0, 0.5]);
    let [at_seen, far] = process.predict(&two)[..] else { panic!("two predictions") };
    assert!(at_seen.deviation < 0.1 * far.deviation, "{at_seen:?} {far:?}");
    assert!((at_seen.mean - values[0]).abs() < 0.1 * scale);
}

#[test]
fn what_is_believed_of_candidates_is_what_a_process_that_has_seen_it_says() {
    let mut rng = SearchRng::seed_from_u64(9);
    let seen = mixed(33, &mut rng);
    let mut values: Vec<f64> = (0..seen.len()).map(|i| truth(seen.row(i))).collect();
    let hyperparameters = Hyperparameters {
        log_weights: vec![1.0, 0.3, -1.0],
        log_signal: -0.2,
        log_additive: -1.0,
        log_noise: -3.0,
    };
    let process = GaussianProcess::new(seen.clone(), &values, &hyperparameters);
    let candidates = mixed(21, &mut rng);
    let mut following = process.follow(&candidates);
    let mut together = seen;
    for index in [3, 20, 4] {
        let expected = following.prediction(index);
        following.believe(index);
        together.push(candidates.row(index));
        values.push(expected.mean);
    }
    // The values have another spread with those that are believed, and a process takes its noise to be a share of that.
    let spread = |values: &[f64]| {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let squares = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
        (squares / values.len() as f64).sqrt()
    };
    let ratio = spread(&values) / spread(&values[..33]);
    let with = GaussianProcess::new(together, &values, &hyperparameters).predict(&candidates);
    let before = process.predict(&candidates);
    for (index, (with, before)) in with.iter().zip(&before).enumerate() {
        let believed = following.prediction(index);
        assert_eq!(believed.mean.to_bits(), before.mean.to_bits());
        let (a, b) = (believed.deviation * ratio, with.deviation);
        assert!((a - b).abs() < 1e-9 * b, "{index}: {a} and {b}");
        assert!(believed.deviation <= before.deviation);
        // Where the mean of all is, the prior's is another; it moves little.
        assert!((believed.mean - with.mean).abs() < 0.2 * before.deviation, "{index}");
    }
    assert!(following.prediction(20).deviation < 0.9 * before[20].deviation);
}

#[test]
fn drawn_weights_scatter_about_the_most_probable_ones_the_less_the_more_was_seen() {
    let most_probable = Hyperparameters {
        log_weights: vec![-1.0, 0.5],
        log_signal: -0.5,
        log_additive: -1.0,
        log_noise: -6.0,
    };
    let mut rng = SearchRng::seed_from_u64(4);
    let mut moments = |values: usize| {
        let draws: Vec<f64> = (0..2000)
            .map(|_| most_probable.draw_about(values, &mut rng).log_weights[1] - 0.5)
            .collect();
        let mean = draws.iter().sum::<f64>() / 2000.0;
        (mean, (draws.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / 2000.0).sqrt())
    };
    let ((few_mean, few), (_, many)) = (moments(10), moments(160));
    assert!(few_mean.abs() < 0.06, "{few_mean}");
    assert!((0.6..0.8).contains(&few) && (3.7..4.3).contains(&(few / many)), "{few} {many}");
    // Only weights are drawn, and the same ones from the same generator.
    let draw = |seed| most_probable.draw_about(10, &mut SearchRng::seed_from_u64(seed));
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
    assert_eq!(draw(1).log_noise.to_bits(), most_probable.log_noise.to_bits());
}

#[test]
fn values_without_spread_and_repeated_points_are_no_trouble() {
    let mut points = Encoded::new(vec![Feature::Category]);
    for _ in 0..5 {
        points.push(&[1.0]);
    }
    let hyperparameters = Hyperparameters::fit(&points, &[0.0; 5], 20);
    let process = GaussianProcess::new(points.clone(), &[7.0; 5], &hyperparameters);
    let prediction = process.predict(&points)[0];
    assert!((prediction.mean - 7.0).abs() < 1e-9 && prediction.deviation > 0.0);
}

/// The mean growth of the volume over random draws.
fn growth_by_draws(
    points: &[Objectives],
    reference: &[f64],
    predictions: &[Prediction],
    draws: u32,
    rng: &mut SearchRng,
) -> f64 {
    let before = hypervolume(points, reference);
    let mut total = 0.0;
    for _ in 0..draws {
        let draw: Vec<f64> =
            predictions.iter().map(|p| p.mean + p.deviation * normal(rng)).collect();
        let mut together = points.to_vec();
        together.push(Objectives::new(draw).expect("finite"));
        total += hypervolume(&together, reference) - before;
    }
    total / f64::from(draws)
}

#[test]
fn the_expected_growth_is_the_mean_over_draws() {
    let mut rng = SearchRng::seed_from_u64(2);
    for objectives in 1..=3 {
        let points: Vec<Objectives> = (0..6)
            .map(|_| {
                let values: Vec<f64> = (0..objectives).map(|_| rng.random()).collect();
                Objectives::new(values).expect("finite")
            })
            .collect();
        let reference = vec![0.9; objectives];
        let improvement = ExpectedImprovement::new(&points, &reference);
        for _ in 0..4 {
            let predictions: Vec<Prediction> = (0..objectives)
                .map(|_| Prediction {
                    mean: rng.random(),
                    deviation: 0.05 + 0.1 * rng.random::<f64>(),
                })
                .collect();
            let expected = growth_by_draws(&points, &reference, &predictions, 5000, &mut rng);
            let value = improvement.of(&predictions);
            // Three objectives are a sum over a sample themselves.
            let tolerance = 0.1 * expected + 0.001;
            assert!((value - expected).abs() < tolerance, "{objectives}: {value}, {expected}");
        }
    }
}

/// The growth is far smaller than the gaps of an even sample of the box.
#[test]
fn the_gaps_of_a_long_front_of_three_objectives_are_seen() {
    let mut rng = SearchRng::seed_from_u64(3);
    let mut on_sphere = |radius: f64| -> Vec<f64> {
        let direction: Vec<f64> = (0..3).map(|_| rng.random_range(0.02..1.0)).collect();
        let length = direction.iter().map(|x| x * x).sum::<f64>().sqrt();
        direction.iter().map(|x| radius * x / length).collect()
    };
    let front: Vec<Objectives> =
        (0..80).map(|_| Objectives::new(on_sphere(1.0)).expect("finite")).collect();
    let candidates: Vec<Vec<f64>> = (0..12).map(|_| on_sphere(0.98)).collect();
    let mut rng = SearchRng::seed_from_u64(4);
    let reference = [1.2; 3];
    let improvement = ExpectedImprovement::new(&front, &reference);
    let (mut value, mut expected) = (0.0, 0.0);
    for candidate in candidates {
        let predictions: Vec<Prediction> =
            candidate.iter().map(|&mean| Prediction { mean, deviation: 0.01 }).collect();
        assert!(improvement.of(&predictions) > 0.0);
        value += improvement.of(&predictions);
        expected += growth_by_draws(&front, &reference, &predictions, 100, &mut rng);
    }
    assert!((value / expected - 1.0).abs() < 0.3, "{value} of {expected}");
}
