//! What was measured, beside what was asked for: the report and its Markdown.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

use crate::goals::{Goal, Memory};
use crate::plot;
use trueup_testkit::output::print_line;

#[derive(Default)]
pub struct Report {
    pub goals: Vec<Goal>,
    cpu: Vec<(String, Vec<(&'static str, f64)>)>,
    curves: Vec<(String, Histogram<u64>)>,
    pub memory: Vec<Memory>,
    /// What else is worth saying, one paragraph each.
    pub notes: Vec<String>,
}

impl Report {
    pub fn judge(&mut self, goal: Goal) {
        print_line(format_args!(
            "goal {}: {}: {} {} → {:.1} {} (asked: {}): {}",
            goal.number,
            goal.what,
            goal.value,
            goal.ceiling,
            goal.measured,
            goal.unit,
            goal.asked(),
            goal.judged().word()
        ));
        self.goals.push(goal);
    }

    pub fn cpu(&mut self, during: &str, cores: Vec<(&'static str, f64)>) {
        let text: Vec<String> = cores
            .iter()
            .map(|(name, cores)| format!("{name} {cores:.2}"))
            .collect();
        print_line(format_args!("  CPU in cores: {}", text.join(", ")));
        self.cpu.push((during.to_owned(), cores));
    }

    pub fn add_note(&mut self, words: String) {
        print_line(format_args!("  {words}"));
        self.notes.push(words);
    }

    pub fn curve(&mut self, of: &str, times: &Histogram<u64>) {
        self.curves.push((of.to_owned(), times.clone()));
    }

    pub fn markdown(&self, title: &str, machine: &str) -> String {
        let mut out = format!("# {title}\n\n{machine}\n\n");
        out.push_str("| goal | what | measured | beside | ratio | asked | |\n|---|---|---|---|---|---|---|\n");
        let mut goals: Vec<&Goal> = self.goals.iter().collect();
        goals.sort_by_key(|goal| goal.number);
        for goal in goals {
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {:.1} {} | {} | {} |",
                goal.number,
                goal.what,
                goal.value,
                goal.ceiling,
                goal.measured,
                goal.unit,
                goal.asked(),
                goal.judged().word()
            );
        }
        if !self.cpu.is_empty() {
            let mut names: Vec<&str> = self
                .cpu
                .iter()
                .flat_map(|(_, cores)| cores.iter().map(|(n, _)| *n))
                .collect();
            names.sort_unstable();
            names.dedup();
            let _ = write!(
                out,
                "\nCPU in cores, by process:\n\n| during | {} |\n|---|",
                names.join(" | ")
            );
            out.push_str(&"---|".repeat(names.len()));
            out.push('\n');
            for (during, cores) in &self.cpu {
                let cells: Vec<String> = names
                    .iter()
                    .map(|name| {
                        cores
                            .iter()
                            .find(|(n, _)| n == name)
                            .map_or_else(String::new, |(_, c)| format!("{c:.2}"))
                    })
                    .collect();
                let _ = writeln!(out, "| {during} | {} |", cells.join(" | "));
            }
        }
        for memory in &self.memory {
            let _ = write!(
                out,
                "\n{}:\n\n| process | first | highest | last |\n|---|---|---|---|\n",
                memory.title
            );
            for (name, points) in &memory.lines {
                let mebi = |bytes: f64| format!("{:.0} MiB", bytes / f64::from(1 << 20));
                let first = points.first().map_or(0.0, |p| p.1);
                let last = points.last().map_or(0.0, |p| p.1);
                let highest = points.iter().map(|p| p.1).fold(0.0, f64::max);
                let _ = writeln!(
                    out,
                    "| {name} | {} | {} | {} |",
                    mebi(first),
                    mebi(highest),
                    mebi(last)
                );
            }
        }
        for note in &self.notes {
            let _ = write!(out, "\n{note}\n");
        }
        out
    }

    /// The table and its pictures.
    pub fn write(
        &self,
        folder: &std::path::Path,
        name: &str,
        title: &str,
        machine: &str,
    ) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder)?;
        let mut text = self.markdown(title, machine);
        let mut picture = |kind: &str, svg: Option<String>| -> anyhow::Result<()> {
            let Some(svg) = svg else { return Ok(()) };
            let file = format!("{name}-{kind}.svg");
            std::fs::write(folder.join(&file), svg)?;
            let _ = write!(text, "\n![{kind}]({file})\n");
            Ok(())
        };
        picture("goals", plot::goals(&self.goals))?;
        picture("latency", plot::latency(&self.curves))?;
        picture("cpu", plot::cpu(&self.cpu))?;
        for (n, memory) in self.memory.iter().enumerate() {
            picture(&format!("memory-{}", n + 1), plot::memory(memory))?;
        }
        std::fs::write(folder.join(format!("{name}.md")), text)?;
        print_line(format_args!(
            "written: {}",
            folder.join(format!("{name}.md")).display()
        ));
        Ok(())
    }
}
