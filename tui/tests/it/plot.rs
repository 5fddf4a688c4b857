//! The plot as text.

use search::wire::Value;
use tui::plot::{LinePlot, Series, to_text};
use tui::theme::Theme;

use crate::sample;

#[test]
fn text_at_three_sizes() {
    let snapshot = sample::running();
    for (width, height) in [(40, 10), (72, 18), (100, 24)] {
        insta::assert_snapshot!(
            format!("text_{width}x{height}"),
            to_text(&snapshot, width, height, false)
        );
    }
    insta::assert_snapshot!("text_single", to_text(&sample::single(), 60, 12, false));
    insta::assert_snapshot!("text_empty", to_text(&sample::empty(), 60, 12, false));
    insta::assert_snapshot!("text_extreme", to_text(&sample::extreme(), 80, 16, false));
}

#[test]
fn wide_errors_are_drawn_and_narrow_ones_are_not() {
    let braille = |text: &str| text.chars().any(|c| ('\u{2801}'..='\u{28ff}').contains(&c));
    let mut snapshot = sample::running();
    assert!(!braille(&to_text(&snapshot, 80, 20, false)));
    for candidate in &mut snapshot.candidates {
        if let Some(value) = candidate.row.values.get_mut("bits_per_byte") {
            value.standard_error = Some(0.08);
        }
    }
    let text = to_text(&snapshot, 80, 20, false);
    assert!(braille(&text));
    insta::assert_snapshot!("text_errors", text);
}

#[test]
fn colour_changes_nothing_but_colour() {
    let snapshot = sample::running();
    let coloured = to_text(&snapshot, 80, 20, true);
    assert!(coloured.contains("\x1b[0;1;36m●"));
    let mut plain = String::new();
    let mut rest = coloured.as_str();
    while let Some(start) = rest.find('\x1b') {
        plain.push_str(&rest[..start]);
        rest = &rest[start + rest[start..].find('m').unwrap() + 1..];
    }
    plain.push_str(rest);
    assert_eq!(plain, to_text(&snapshot, 80, 20, false));
    for line in coloured.lines().filter(|line| line.contains('\x1b')) {
        assert!(line.ends_with("\x1b[0m"), "a colour runs on after {line:?}");
    }
}

#[test]
fn a_value_that_is_not_finite_is_not_plotted() {
    let mut snapshot = sample::single();
    let nan = Value { mean: f64::NAN, standard_error: None };
    snapshot.candidates[0].row.values.insert("bits_per_byte".into(), nan);
    assert!(to_text(&snapshot, 60, 12, false).contains("no candidate is trained and timed yet"));
    snapshot.candidates[0]
        .row
        .values
        .insert("bits_per_byte".into(), Value { mean: 2.0, standard_error: Some(f64::NAN) });
    assert!(to_text(&snapshot, 60, 12, false).contains('◆'));
}

/// One objective: the values over the evaluations, larger ones above, with a line along the best so far.
#[test]
fn one_objective_is_a_history() {
    let mut snapshot = sample::one_objective("cost");
    insta::assert_snapshot!("history_less", to_text(&snapshot, 72, 16, false));
    snapshot = sample::one_objective("-cost");
    insta::assert_snapshot!("history_more", to_text(&snapshot, 72, 16, false));
    // What is far off does not press the others into a line.
    let far = Value { mean: -1e300, standard_error: None };
    snapshot.candidates[2].row.values.insert("cost".into(), far);
    let text = to_text(&snapshot, 72, 16, false);
    assert!(text.contains('↓') && !text.contains("1e300"), "{text}");
    let one = sample::one_objective("cost").candidates.swap_remove(0);
    snapshot.candidates = vec![one];
    let text = to_text(&snapshot, 72, 16, false);
    assert!(text.contains('●') || text.contains('·'), "{text}");
    snapshot.candidates.clear();
    assert!(to_text(&snapshot, 72, 16, false).contains("no candidate is evaluated yet"));
}

#[test]
fn axes_follow_the_objectives() {
    let mut snapshot = sample::running();
    snapshot.campaign.objectives = sample::objectives(&["prefill_us", "validation_loss"]);
    let text = to_text(&snapshot, 90, 20, false);
    assert!(
        text.contains("validation loss, nats per token") && text.contains("prefill latency, µs"),
        "{text}"
    );
    snapshot.campaign.objectives =
        sample::objectives(&["bits_per_byte", "parameters", "decode_us"]);
    let text = to_text(&snapshot, 90, 20, false);
    assert!(text.contains("validation bits per byte") && text.contains("decode latency"), "{text}");
    snapshot.campaign.objectives = sample::objectives(&["bits_per_byte"]);
    assert!(to_text(&snapshot, 90, 20, false).contains("best so far"));
}

/// Two rising lines, one of them with points of its own.
fn series() -> Vec<Series> {
    let line =
        |rate: f64| (1..=40).map(move |n| (f64::from(n), 1.0 - (-f64::from(n) / rate).exp()));
    let points = vec![(3.0, 0.5), (20.0, 0.7)];
    vec![
        Series {
            name: "quick".to_owned(),
            sign: 'a',
            line: line(5.0).collect(),
            points: Vec::new(),
        },
        Series { name: "slow".to_owned(), sign: 'b', line: line(20.0).collect(), points },
    ]
}

fn lines(series: &[Series], budget: Option<f64>) -> LinePlot<'_> {
    LinePlot {
        x_name: "evaluations",
        y_name: "share",
        series,
        is_linear: true,
        budget,
        theme: Theme::PLAIN,
    }
}

#[test]
fn lines_at_two_sizes() {
    let series = series();
    for (width, height) in [(40, 9), (80, 16)] {
        let text = lines(&series, Some(30.0)).to_text(width, height);
        insta::assert_snapshot!(format!("lines_{width}x{height}"), text);
    }
}

#[test]
fn lines_of_no_size_or_without_points_do_not_panic() {
    let bad = vec![Series {
        name: "bad".to_owned(),
        sign: 'a',
        line: vec![(f64::NAN, 1.0)],
        points: vec![(1.0, f64::INFINITY)],
    }];
    for series in [Vec::new(), bad] {
        let text = lines(&series, None).to_text(60, 12);
        assert!(text.contains("nothing to draw yet"), "{text}");
    }
    let one = vec![Series { line: vec![(1.0, 1.0)], ..series().remove(0) }];
    for (width, height) in [(1, 1), (24, 7), (25, 40), (200, 8)] {
        lines(&one, Some(5.0)).to_text(width, height);
        lines(&series(), None).to_text(width, height);
    }
}
