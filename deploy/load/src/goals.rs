//! What is asked of a figure, and whether it was met.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    More,
    Less,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoalOutcome {
    Stretch,
    Met,
    NotMet,
}

impl GoalOutcome {
    pub fn word(self) -> &'static str {
        match self {
            GoalOutcome::Stretch => "stretch",
            GoalOutcome::Met => "met",
            GoalOutcome::NotMet => "**not met**",
        }
    }
}

/// One line of the table.
#[derive(Debug, Clone)]
pub struct Goal {
    pub number: u8,
    pub what: String,
    pub value: String,
    /// What it is measured against, of the same minute; empty where the goal is absolute.
    pub ceiling: String,
    pub measured: f64,
    pub unit: &'static str,
    pub better: Better,
    pub pass: f64,
    pub stretch: Option<f64>,
}

impl Goal {
    pub fn judged(&self) -> GoalOutcome {
        let reaches = |mark: f64| match self.better {
            Better::More => self.measured >= mark,
            Better::Less => self.measured <= mark,
        };
        match self.stretch {
            Some(stretch) if reaches(stretch) => GoalOutcome::Stretch,
            _ if reaches(self.pass) => GoalOutcome::Met,
            _ => GoalOutcome::NotMet,
        }
    }

    /// What is asked, to a tenth.
    pub fn asked(&self) -> String {
        let sign = if self.better == Better::More {
            '≥'
        } else {
            '≤'
        };
        let stretch = self
            .stretch
            .map(|s| format!(" (stretch {s})"))
            .unwrap_or_default();
        format!(
            "{sign} {}{stretch} {}",
            (self.pass * 10.0).round() / 10.0,
            self.unit
        )
    }
}

/// Memory of processes over the time of one measurement.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    pub title: String,
    /// (seconds, bytes) by process.
    pub lines: Vec<(String, Vec<(f64, f64)>)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_judged_by_its_marks() {
        let goal = |better, measured| Goal {
            number: 1,
            what: String::new(),
            value: String::new(),
            ceiling: String::new(),
            measured,
            unit: "%",
            better,
            pass: if better == Better::More { 20.0 } else { 6.0 },
            stretch: Some(if better == Better::More { 24.0 } else { 4.0 }),
        };
        for (better, measured, judged) in [
            (Better::More, 24.0, GoalOutcome::Stretch),
            (Better::More, 23.9, GoalOutcome::Met),
            (Better::More, 19.9, GoalOutcome::NotMet),
            (Better::Less, 4.0, GoalOutcome::Stretch),
            (Better::Less, 6.1, GoalOutcome::NotMet),
        ] {
            assert_eq!(goal(better, measured).judged(), judged, "{measured}");
        }
    }
}
