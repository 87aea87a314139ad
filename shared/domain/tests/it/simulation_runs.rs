//! Runs of the simulation. One that fails is made shorter before it is told.
//!
//! `TRUEUP_TEST_SIM_SEED` runs one seed again, and looks at the books after every step (a failure
//! prints its seed). `TRUEUP_TEST_SIM_STEPS` takes that many steps from seeds of today, or from the
//! given one on; `cargo xtask faults --iterations` does.

use std::any::Any;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use jiff::Timestamp;
use trueup_event::reason::Status;

use crate::shrinking::{MOST_TRIES, shorten};
use crate::simulation::{Kind, Move, PlantedCheck, Simulation, StepKind, draw_moves};

/// Steps in the normal run of the tests, of each kind.
const STEPS: u64 = 9_600;
/// A run's books are then put aside: what is wrong shows early or not at all, and small books are fast.
const STEPS_PER_RUN: u64 = 1_200;

#[derive(Clone, Copy)]
struct Run {
    kind: Kind,
    seed: u64,
    closely: bool,
    planted: Option<PlantedCheck>,
}

impl Run {
    fn simulation(&self) -> Simulation {
        let mut simulation = Simulation::new(self.kind, self.seed);
        simulation.planted = self.planted;
        simulation
    }

    /// The text is the breach, or what a panic said.
    fn attempt(&self, moves: &[Move]) -> Result<Simulation, String> {
        let mut simulation = self.simulation();
        self.make_moves(&mut simulation, moves)?;
        Ok(simulation)
    }

    fn make_moves(&self, simulation: &mut Simulation, moves: &[Move]) -> Result<(), String> {
        let run = AssertUnwindSafe(|| simulation.run(moves, self.closely));
        panic::catch_unwind(run).unwrap_or_else(|payload| Err(panic_text(&*payload)))
    }

    /// Fewer moves that end in a breach of the same rule.
    fn shorten(&self, moves: &[Move], breach: &str) -> Vec<Move> {
        let _quiet = Quiet::begin();
        shorten(
            moves,
            MOST_TRIES,
            |fewer| matches!(self.attempt(fewer), Err(other) if rule_of(&other) == rule_of(breach)),
        )
    }

    /// What happens in these moves, one line each, with what it changed.
    fn history(&self, moves: &[Move]) -> String {
        let _quiet = Quiet::begin();
        let mut simulation = self.simulation();
        simulation.history = Some(Vec::new());
        let end = self.make_moves(&mut simulation, moves);
        let mut lines = simulation.history.unwrap_or_default();
        lines.extend(end.err());
        lines.join("\n")
    }

    fn fail(&self, moves: &[Move], breach: &str) -> ! {
        let shorter = self.shorten(moves, breach);
        panic!(
            "{breach}\n\nThe same in {} of {} moves:\n{}\n\nagain with TRUEUP_TEST_SIM_SEED={} ({:?})",
            shorter.len(),
            moves.len(),
            self.history(&shorter),
            self.seed,
            self.kind
        );
    }
}

/// What stands before the first colon, such as `invariant 4`.
fn rule_of(breach: &str) -> &str {
    breach.split(':').next().unwrap_or(breach)
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without a text").to_owned()
}

thread_local! {
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
}

/// While it lives, this thread's panics are not printed: each of many tries may end in one.
struct Quiet;

impl Quiet {
    fn begin() -> Quiet {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let print = panic::take_hook();
            panic::set_hook(Box::new(move |panic| {
                if !IS_QUIET.get() {
                    print(panic);
                }
            }));
        });
        IS_QUIET.set(true);
        Quiet
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        IS_QUIET.set(false);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the variables are this test's own"
)]
fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Which seeds are run, and whether closely.
fn seeds() -> (std::ops::Range<u64>, bool) {
    let (seed, steps) = (
        number("TRUEUP_TEST_SIM_SEED"),
        number("TRUEUP_TEST_SIM_STEPS"),
    );
    let runs = steps.unwrap_or(STEPS).div_ceil(STEPS_PER_RUN);
    match (seed, steps) {
        (Some(seed), None) => (seed..seed + 1, true),
        (Some(seed), Some(_)) => (seed..seed + runs, false),
        (None, None) => (0..runs, false),
        (None, Some(_)) => {
            let today = u64::try_from(Timestamp::now().as_millisecond()).expect("after 1970");
            (today..today + runs, false)
        }
    }
}

#[test]
fn the_invariants_hold_at_every_rest() {
    let (seeds, closely) = seeds();
    println!("seeds {seeds:?}, {STEPS_PER_RUN} steps each");
    let mut statuses: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in seeds {
        let moves = draw_moves(seed, STEPS_PER_RUN);
        for kind in [Kind::ByIds, Kind::GuessesInOrder, Kind::Everything] {
            let run = Run {
                kind,
                seed,
                closely,
                planted: None,
            };
            let simulation = match run.attempt(&moves) {
                Ok(simulation) => simulation,
                Err(breach) => run.fail(&moves, &breach),
            };
            for row in simulation.store.rows.values() {
                *statuses.entry(row.status.code()).or_default() += 1;
            }
        }
    }
    println!("rows by status: {statuses:?}");
    for status in Status::ALL.iter().filter(|s| **s != Status::Refused) {
        assert!(
            statuses.contains_key(status.code()),
            "the runs never came upon {status}: {statuses:?}"
        );
    }
}

/// A run of everything with an invariant that cannot hold, made as short as it gets.
fn shorten_planted(seed: u64, planted: PlantedCheck) -> (Run, Vec<Move>, String) {
    let run = Run {
        kind: Kind::Everything,
        seed,
        closely: false,
        planted: Some(planted),
    };
    let moves = draw_moves(seed, STEPS_PER_RUN);
    let _quiet = Quiet::begin();
    let breach = run.attempt(&moves).map(|_| ()).expect_err("planted");
    let shorter = run.shorten(&moves, &breach);
    (run, shorter, breach)
}

fn kinds_of(run: &Run, moves: &[Move]) -> BTreeMap<StepKind, u64> {
    let _quiet = Quiet::begin();
    let mut simulation = run.simulation();
    let _ = run.make_moves(&mut simulation, moves);
    simulation.taken
}

#[test]
fn a_run_that_fails_by_two_steps_is_shortened_to_those_two() {
    let planted: PlantedCheck = |simulation| {
        let taken = |kind| simulation.taken.contains_key(&kind);
        if taken(StepKind::Kill) && taken(StepKind::MoveClock) {
            return Err("planted: a kill and a clock that moved".to_owned());
        }
        Ok(())
    };
    for seed in 0..3 {
        let (run, shorter, breach) = shorten_planted(seed, planted);
        assert_eq!(shorter.len(), 2, "{}", run.history(&shorter));
        let wanted = [(StepKind::MoveClock, 1), (StepKind::Kill, 1)];
        assert_eq!(kinds_of(&run, &shorter), BTreeMap::from(wanted));
        let told = run.history(&shorter);
        assert!(
            told.contains("Kill") && told.contains("MoveClock") && told.ends_with(&breach),
            "{told}"
        );
    }
}

#[test]
fn a_panic_that_needs_a_history_is_shortened_until_no_move_is_too_many() {
    let planted: PlantedCheck = |simulation| {
        let mut rows = simulation.store.rows.values();
        let paid_twice = rows.any(|row| row.status == Status::Duplicate && row.call_id.is_some());
        assert!(!paid_twice, "planted: a report that came twice");
        Ok(())
    };
    let (run, shorter, breach) = shorten_planted(1, planted);
    assert_eq!(breach, "planted: a report that came twice");
    // A call, its report, and that once more; the end brings the rest.
    assert!(
        (3..=4).contains(&shorter.len()),
        "{}",
        run.history(&shorter)
    );
    assert!(kinds_of(&run, &shorter).contains_key(&StepKind::RecordCall));
    for at in 0..shorter.len() {
        let mut fewer = shorter.clone();
        fewer.remove(at);
        assert!(run.attempt(&fewer).is_ok(), "without {:?}", shorter[at]);
    }
}

/// What makes single moves worth leaving out.
#[test]
fn a_move_left_out_changes_no_other() {
    let seed = 5;
    let moves = draw_moves(seed, 200);
    let run = Run {
        kind: Kind::Everything,
        seed,
        closely: false,
        planted: None,
    };
    let whole = run
        .attempt(&moves)
        .unwrap_or_else(|breach| panic!("{breach}"));
    let kept: Vec<Move> = moves.iter().copied().filter(|m| *m != moves[20]).collect();
    let fewer = run
        .attempt(&kept)
        .unwrap_or_else(|breach| panic!("{breach}"));
    assert_eq!((whole.now, whole.calls), (fewer.now, fewer.calls));
    let same = |id: &&uuid::Uuid| fewer.accepted.contains_key(*id);
    let lost = whole.accepted.len() - whole.accepted.keys().filter(same).count();
    assert!(lost <= 1, "{lost} events are others");
}
