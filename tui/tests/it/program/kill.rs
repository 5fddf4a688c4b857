//! `kill -9` of the driver, at three moments, and going on.

use super::harness::{EVALUATIONS, World};

#[test]
fn a_campaign_goes_on_after_kill_9() {
    let undisturbed = World::new("undisturbed");
    assert_eq!(undisturbed.say(&["run"]).code, 0);

    let mut world = World::new("killed");
    world.set("FAKE_PROFILER", "slow 0.05");
    world.set("FAKE_TRAINER", "slow 0.2");
    // While parts are timed.
    let run = world.start();
    world.wait_until("parts are timed", |world| world.count("measurements") >= 3);
    run.kill();
    assert_eq!(world.count("evaluations"), 0, "nothing is trained before all parts are timed");
    let timed = world.count("measurements");
    // In the first training; and between later ones.
    for evaluations in [1, 5] {
        let run = world.start();
        world.wait_until("it trains", |world| world.count("evaluations") >= evaluations);
        run.kill();
        let state = world.campaign()["state"].clone();
        assert_eq!(state, "paused", "the lock of a dead driver is no lock");
    }
    world.set("FAKE_TRAINER", "");
    let said = world.say(&["run"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stderr.contains("ended without a word"), "{}", said.stderr);

    assert_eq!(world.candidates(), undisturbed.candidates());
    let repeated = world.count("evaluations") - EVALUATIONS;
    assert!(repeated <= 2, "{repeated} trainings were repeated after two kills in trainings");
    let again = world.count("measurements") - undisturbed.count("measurements");
    assert!(again <= 1, "{again} timings were repeated, of {timed} before the kill");
    let log = world.say(&["show", "--log"]).stdout;
    assert_eq!(log.matches("takeover").count(), 3, "{log}");
}
