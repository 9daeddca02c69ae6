//! All orders of acts, up to a size: breadth first over the states of the model, each
//! by its shortest way, and every single order up to a smaller depth. The real parts
//! can't be copied, so each order is played from the start.

use super::obvious::{Act, Hours, Limits, Model};
use super::real::{Broken, Flaw, Rule, World};
use std::collections::{HashSet, VecDeque};

/// Under which policy, and with what put together wrongly.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    pub hours: Hours,
    pub flaw: Option<Flaw>,
}

/// An order of acts that breaks a rule with its last one.
pub struct Counterexample {
    pub rule: Rule,
    pub acts: Vec<Act>,
    report: String,
}

impl std::fmt::Debug for Counterexample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.report)
    }
}

impl Counterexample {
    fn new(setting: Setting, acts: &[Act], broken: Broken) -> Counterexample {
        let Broken { rule, what } = broken;
        let Hours {
            ttl,
            grace,
            fail_ttl,
            places,
        } = setting.hours;

        let call = format!("play(hours(({ttl}, {grace}, {fail_ttl}), {places}), &{acts:?})");
        let report = format!(
            "{rule:?}: {what}, after\n    {call}\nwith {:?}",
            setting.flaw
        );
        Counterexample {
            rule,
            acts: acts.to_vec(),
            report,
        }
    }
}

/// After which acts everything is compared. A look asks, and asking makes the cache
/// look at the clock.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Looks {
    Last,
    Each,
}

/// Plays an order of acts on the model and on the real parts.
pub fn play(setting: Setting, acts: &[Act], looks: Looks) -> Result<(), Counterexample> {
    let mut model = Model::new(setting.hours);
    let mut world = World::new(setting.hours, setting.flaw);

    for (at, act) in acts.iter().enumerate() {
        let each = looks == Looks::Each;
        let before = &acts[..at];
        assert!(
            !each || model.allows(*act),
            "{act:?} can't happen after {before:?}"
        );

        let looks = each || at + 1 == acts.len();
        step(&mut model, &mut world, *act, looks)
            .map_err(|broken| Counterexample::new(setting, &acts[..=at], broken))?;
    }

    if setting.flaw.is_none() {
        world
            .close()
            .map_err(|broken| Counterexample::new(setting, acts, broken))?;
    }
    Ok(())
}

fn step(model: &mut Model, world: &mut World, act: Act, looks: bool) -> Result<(), Broken> {
    if act.ends().is_some() {
        model.settle(act);
    } else {
        model.act(act);
    }
    if looks {
        world.wait();
    }

    let mut between = Ok(());
    world.act(act, |world| {
        if looks {
            between = world.check(model);
        }
    });
    between?;

    model.announce(act);
    if looks {
        world.check(model)?;
    }
    Ok(())
}

/// How much was visited.
#[derive(Debug, Default)]
pub struct Visited {
    pub states: usize,
    pub orders: usize,
    pub deepest: usize,
}

/// One act more, if model and code agree about it.
fn further(
    setting: Setting,
    (model, acts): (&Model, &[Act]),
    act: Act,
) -> Result<(Model, Vec<Act>), Counterexample> {
    let longer = [acts, &[act]].concat();
    play(setting, &longer, Looks::Last)?;

    let mut next = model.clone();
    next.act(act);
    Ok((next, longer))
}

/// Every act in every state that the model can come to, each state by a shortest way.
pub fn states(setting: Setting, limits: Limits, depth: usize) -> Result<Visited, Counterexample> {
    let start = Model::new(setting.hours);
    let mut visited = Visited {
        states: 1,
        ..Visited::default()
    };
    let mut known = HashSet::from([start.essence()]);
    let mut open = VecDeque::from([(start, Vec::new())]);

    while let Some((model, acts)) = open.pop_front() {
        for act in model.possible(limits) {
            let (next, longer) = further(setting, (&model, &acts), act)?;
            visited.orders += 1;
            visited.deepest = longer.len();
            if longer.len() < depth && known.insert(next.essence()) {
                visited.states += 1;
                open.push_back((next, longer));
            }
        }
    }
    Ok(visited)
}

/// Every order of this many acts, and all that begin one.
pub fn orders(setting: Setting, limits: Limits, depth: usize) -> Result<Visited, Counterexample> {
    let mut visited = Visited {
        deepest: depth,
        ..Visited::default()
    };
    let mut open = vec![(Model::new(setting.hours), Vec::new())];

    while let Some((model, acts)) = open.pop() {
        for act in model.possible(limits) {
            let (next, longer) = further(setting, (&model, &acts), act)?;
            visited.orders += 1;
            if longer.len() < depth {
                open.push((next, longer));
            }
        }
    }
    Ok(visited)
}
