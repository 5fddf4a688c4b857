//! Rank correlations against numbers from elsewhere, and lines through few points.

use search::statistics::{Line, kendall, spearman};

/// Values with ties, and what `scipy.stats.kendalltau` and `spearmanr` (1.17.1) say of them.
#[test]
fn rank_correlations_are_those_of_scipy() {
    let x = [12.0, 2.0, 1.0, 12.0, 2.0, 7.0, 3.0];
    let y = [1.0, 4.0, 7.0, 1.0, 0.0, 2.0, 3.0];
    let pairs: Vec<(f64, f64)> = x.into_iter().zip(y).collect();
    let tau = kendall(&pairs).expect("seven pairs");
    let rho = spearman(&pairs).expect("seven pairs");
    assert!((tau.value - TAU).abs() < 1e-12, "{tau:?}");
    assert!((rho.value - RHO).abs() < 1e-12, "{rho:?}");
    assert!(tau.low < tau.value && tau.value < tau.high && tau.high < 1.0);
}

const TAU: f64 = -0.564_288_093_646_834_6;
const RHO: f64 = -0.550_481_882_563_180_3;

#[test]
fn an_order_agrees_with_itself_and_few_pairs_say_nothing() {
    let same: Vec<(f64, f64)> = (0..9).map(|i| (f64::from(i), f64::from(i * i))).collect();
    let tau = kendall(&same).expect("nine pairs");
    assert!((tau.value - 1.0).abs() < 1e-12 && tau.high <= 1.0);
    assert_eq!(kendall(&same[..4]), None);
    assert_eq!(spearman(&same[..4]), None);
    let ties: Vec<(f64, f64)> = (0..9).map(|i| (1.0, f64::from(i))).collect();
    assert_eq!((kendall(&ties), spearman(&ties)), (None, None));
}

#[test]
fn a_line_is_a_shift_until_there_are_points_for_a_slope() {
    let pairs: Vec<(f64, f64)> = (0..8).map(|i| (f64::from(i), 3.0 + 0.5 * f64::from(i))).collect();
    assert_eq!(Line::through(&[]), None);
    let one = Line::through(&pairs[..1]).expect("a pair");
    assert!((one.at(10.0) - 13.0).abs() < 1e-12 && (one.deviation - 3.0).abs() < 1e-12);
    let all = Line::through(&pairs).expect("pairs");
    assert!((all.at(10.0) - 8.0).abs() < 1e-9 && all.deviation < 1e-9);
    let flat: Vec<(f64, f64)> = (0..8).map(|i| (2.0, f64::from(i))).collect();
    let flat = Line::through(&flat).expect("pairs");
    assert!((flat.at(2.0) - 3.5).abs() < 1e-12);
}
