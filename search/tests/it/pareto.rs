//! Sorting, crowding and hypervolume against slow and plain definitions.

use proptest::prelude::*;
use search::pareto::{Frontier, Objectives, Scale, crowding_distances, front, hypervolume, ranks};

fn points(rows: &[&[f64]]) -> Vec<Objectives> {
    rows.iter().map(|row| Objectives::new(row.iter().copied()).expect("finite")).collect()
}

/// Few distinct values, so that ties and repeats are common.
fn some_points(objectives: usize, up_to: usize) -> impl Strategy<Value = Vec<Objectives>> {
    let value = (0_u8..6).prop_map(|v| f64::from(v) / 5.0);
    prop::collection::vec(prop::collection::vec(value, objectives), 0..up_to).prop_map(|rows| {
        rows.into_iter().map(|row| Objectives::new(row).expect("finite")).collect()
    })
}

fn any_points() -> impl Strategy<Value = Vec<Objectives>> {
    (1_usize..5).prop_flat_map(|objectives| some_points(objectives, 40))
}

/// Removes front after front, each by comparing all pairs.
fn ranks_by_peeling(points: &[Objectives]) -> Vec<u32> {
    let mut ranks = vec![u32::MAX; points.len()];
    let mut rank = 0;
    while ranks.contains(&u32::MAX) {
        let left: Vec<usize> = (0..points.len()).filter(|&i| ranks[i] == u32::MAX).collect();
        for &i in &left {
            if !left.iter().any(|&j| points[j].dominates(&points[i])) {
                ranks[i] = rank;
            }
        }
        rank += 1;
    }
    ranks
}

/// The volume of the union of boxes on the grid of sixths that the points lie on: cells are counted.
fn volume_by_cells(points: &[Objectives], objectives: u32, reference: f64) -> f64 {
    let cells = (reference * 5.0).round() as usize;
    let total = cells.pow(objectives);
    let is_dominated = |cell: usize| {
        points.iter().any(|p| {
            let mut rest = cell;
            p.values().iter().all(|v| {
                let lower = (rest % cells) as f64 / 5.0;
                rest /= cells;
                *v <= lower + 1e-9
            })
        })
    };
    (0..total).filter(|&cell| is_dominated(cell)).count() as f64
        * 0.2_f64.powf(f64::from(objectives))
}

#[test]
fn what_is_not_finite_has_no_objectives() {
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let refused = Objectives::new(vec![1.0, value]).expect_err("not finite");
        assert_eq!(refused.index, 1);
    }
}

#[test]
fn equal_points_are_all_in_the_front() {
    let three = points(&[&[1.0, 2.0], &[1.0, 2.0], &[2.0, 2.0], &[0.0, 3.0], &[1.0, 2.0]]);
    assert_eq!(front(&three), [0, 1, 3, 4]);
    assert_eq!(ranks(&three), [0, 0, 1, 0, 0]);
    assert_eq!(front(&[]), Vec::<usize>::new());
}

#[test]
fn crowding_is_the_perimeter_between_the_neighbours() {
    let line = points(&[&[0.0, 4.0], &[1.0, 2.0], &[1.0, 2.0], &[4.0, 0.0]]);
    let distances = crowding_distances(&line);
    // Both copies: (4 − 0)/4 + (4 − 0)/4.
    assert_eq!(distances, [f64::INFINITY, 2.0, 2.0, f64::INFINITY]);
}

#[test]
fn hypervolume_of_known_sets() {
    let staircase = points(&[&[1.0, 3.0], &[2.0, 2.0], &[3.0, 1.0], &[5.0, 0.0]]);
    let volumes = vec![
        hypervolume(&staircase, &[4.0, 4.0]),
        hypervolume(&points(&[&[1.0, 2.0, 3.0]]), &[2.0, 4.0, 6.0]),
        hypervolume(&points(&[&[0.0; 4]]), &[2.0; 4]),
        hypervolume(&[], &[1.0, 1.0]),
    ];
    assert_eq!(volumes, vec![6.0, 6.0, 16.0, 0.0]);
}

proptest! {
    #[test]
    fn ranks_are_those_of_peeling(points in any_points()) {
        let expected = ranks_by_peeling(&points);
        prop_assert_eq!(&ranks(&points), &expected);
        let members: Vec<usize> = (0..points.len()).filter(|&i| expected[i] == 0).collect();
        prop_assert_eq!(front(&points), members);
    }

    #[test]
    fn crowding_follows_a_permutation(points in any_points(), turn in 0_usize..40) {
        let distances = crowding_distances(&points);
        let turn = if points.is_empty() { 0 } else { turn % points.len() };
        let mut turned = points.clone();
        turned.rotate_left(turn);
        let mut expected = distances;
        expected.rotate_left(turn);
        prop_assert_eq!(crowding_distances(&turned), expected);
    }

    #[test]
    fn hypervolume_counts_the_dominated_cells(
        (objectives, points) in (1_usize..5).prop_flat_map(|n| (Just(n), some_points(n, 12))),
        inside in any::<bool>(),
    ) {
        // A reference inside the points' range cuts some of them off.
        let reference = if inside { 0.6 } else { 1.2 };
        let volume = hypervolume(&points, &vec![reference; objectives]);
        let cells = volume_by_cells(&points, objectives as u32, reference);
        prop_assert!((volume - cells).abs() < 1e-9, "{volume} against {cells} by cells");
    }
}

#[test]
fn a_scale_is_that_of_the_front() {
    // The third point is dominated, so that its values give no scale.
    let found = points(&[&[2.0, 8.0], &[4.0, 6.0], &[9.0, 9.0]]);
    let scale = Scale::of(&found).expect("there are points");
    let ends: Vec<(f64, f64)> = scale.axes().iter().map(|axis| (axis.best, axis.worst)).collect();
    assert_eq!(ends, [(2.0, 4.0), (6.0, 8.0)]);
    assert!(scale.axes().iter().all(|axis| !axis.is_log));
    // (0, 1) and (1, 0) up to (1.1, 1.1): 1.1·0.1 + 0.1·1.0 = 0.21
    assert!((scale.share(&found) - 1.0).abs() < 1e-12);
    let expected = 0.11 / 0.21;
    assert!((scale.share(&found[..1]) - expected).abs() < 1e-12);
    let evaluations =
        [None, Some(found[0].clone()), Some(found[2].clone()), Some(found[1].clone())];
    let trace = scale.trace(&evaluations);
    for (share, expected) in trace.iter().zip([0.0, expected, expected, 1.0]) {
        assert!((share - expected).abs() < 1e-12, "{trace:?}");
    }
    assert_eq!(Scale::of(&[]), None);
}

#[test]
fn decades_are_scaled_by_logarithms_and_a_single_value_by_itself() {
    let found = points(&[&[1.0, 5.0], &[10.0, 5.0 - 1e-9], &[100.0, 4.0]]);
    let scale = Scale::of(&found).expect("there are points");
    assert!(scale.axes()[0].is_log && !scale.axes()[1].is_log);
    // (0, 1), (0.5, 1), (1, 0): the middle one is halfway by its logarithm and adds nothing.
    assert!((scale.share(&found[..1]) - scale.share(&found[..2])).abs() < 1e-6);
    let middle = scale.share(&found[1..2]) / scale.share(&found[..1]);
    assert!((middle - 0.6 / 1.1).abs() < 1e-6, "{middle}");
    for single in [&[3.0, -2.0][..], &[0.0, 0.0]] {
        let scale = Scale::of(&points(&[single])).expect("a point");
        assert!((scale.share(&points(&[single])) - 1.0).abs() < 1e-12);
    }
}

proptest! {
    #[test]
    fn a_frontier_is_the_front_of_what_it_was_given(points in any_points()) {
        let mut frontier = Frontier::default();
        for (count, point) in points.iter().enumerate() {
            let before = &points[..count];
            let is_new = !before.iter().any(|other| other == point || other.dominates(point));
            prop_assert_eq!(frontier.dominates(point), before.iter().any(|p| p.dominates(point)));
            prop_assert_eq!(frontier.insert(point), is_new);
        }
        let mut expected: Vec<&Objectives> = front(&points).into_iter().map(|i| &points[i]).collect();
        let mut members: Vec<&Objectives> = frontier.members().iter().collect();
        for list in [&mut expected, &mut members] {
            list.sort_by(|a, b| a.values().partial_cmp(b.values()).expect("finite"));
        }
        expected.dedup();
        prop_assert_eq!(members, expected);
    }

    /// Of two objectives to the bit, though it is summed another way.
    #[test]
    fn a_trace_in_a_plane_is_the_share_of_all_before(found in some_points(2, 30)) {
        let Some(scale) = Scale::of(&found) else { return Ok(()) };
        let evaluations: Vec<Option<Objectives>> = found.iter().cloned().map(Some).collect();
        for (index, share) in scale.trace(&evaluations).into_iter().enumerate() {
            prop_assert_eq!(share.to_bits(), scale.share(&found[..=index]).to_bits());
        }
    }

    #[test]
    fn a_trace_is_the_share_of_all_before(found in some_points(3, 20)) {
        let Some(scale) = Scale::of(&found) else { return Ok(()) };
        let evaluations: Vec<Option<Objectives>> = found.iter().cloned().map(Some).collect();
        for (index, share) in scale.trace(&evaluations).into_iter().enumerate() {
            prop_assert!((share - scale.share(&found[..=index])).abs() < 1e-9);
        }
        prop_assert!((scale.share(&found) - 1.0).abs() < 1e-9);
    }
}
