//! Rank correlations against numbers from elsewhere.

use search::statistics::{kendall, spearman};

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
