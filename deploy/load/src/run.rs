//! One run: the chosen goals one after the other, then the report.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use trueup_testkit::database::TestDatabase;

use crate::environment::Testbed;
use crate::gateway_throughput::{self, Spans};
use crate::report::Report;
use crate::{backlog_drain, end_to_end, overload_memory, stored_bytes};
use trueup_testkit::output::print_line;

#[derive(Args, Clone)]
pub struct Options {
    /// Only these goals [default: all but 6, which makes 5 M calls first and must be asked for]
    #[arg(long = "goal", value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(u8).range(1..=7))]
    goals: Vec<u8>,
    /// Short measurements, small books and few paces: under two minutes
    #[arg(long)]
    quick: bool,
    /// Of goal 4, try only these paces, in parts of a hundred of hyper alone [default: 18 down to 3]
    #[arg(long = "pace", value_name = "PERCENT", value_delimiter = ',')]
    paces: Vec<f64>,
    /// So many seconds of overload at the end, watching the memory of each process
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    overload: u64,
    /// Gateways at once
    #[arg(long, default_value_t = 1)]
    gateways: usize,
    /// Workers at once
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Where the binaries are
    #[arg(long, default_value = "target/release")]
    binaries: PathBuf,
    /// Where the report goes
    #[arg(long, default_value = "deploy/perf")]
    out: PathBuf,
    /// The report's file name
    #[arg(long)]
    name: Option<String>,
}

impl Options {
    fn wants(&self, goal: u8) -> bool {
        if self.goals.is_empty() {
            goal != 6
        } else {
            self.goals.contains(&goal)
        }
    }

    fn spans(&self) -> Spans {
        let (warm_up, ceiling, door) = if self.quick {
            (500, 1000, 2000)
        } else {
            (1500, 3000, 8000)
        };
        let millis = Duration::from_millis;
        Spans {
            warm_up: millis(warm_up),
            ceiling: millis(ceiling),
            door: millis(door),
        }
    }

    fn drain(&self) -> backlog_drain::Plan {
        backlog_drain::Plan {
            calls: if self.quick { 200_000 } else { 1_000_000 },
            events: 0,
            reports: if self.quick { 60_000 } else { 300_000 },
            hot: false,
            workers: self.workers,
            wait: false,
            span: Duration::from_secs(if self.quick { 2 } else { 6 }),
            worker: self.binaries.join("trueup-worker"),
        }
    }

    fn calls(&self) -> i64 {
        if self.quick { 100_000 } else { 1_000_000 }
    }
}

pub async fn run(options: &Options) -> anyhow::Result<()> {
    let began = Instant::now();
    raise_descriptor_limit();
    let mut report = Report::default();
    if options.overload > 0 || [1, 2, 4, 5].into_iter().any(|goal| options.wants(goal)) {
        print_line(format_args!("making books of {} calls …", options.calls()));
        let mut stage = Testbed::set(&options.binaries, options.calls()).await?;
        stage.open_doors(options.gateways).await?;
        let spans = options.spans();
        if options.wants(1) {
            gateway_throughput::accepting(&mut stage, spans, &mut report).await?;
        }
        if options.wants(2) {
            gateway_throughput::refusing(&mut stage, spans, &mut report).await?;
        }
        if options.wants(1) {
            gateway_throughput::idling(&stage, 10_000, &mut report).await?;
        }
        stage.empty_queue().await?;
        stage.start_workers(options.workers).await;
        if options.wants(5) {
            end_to_end::one_at_a_time(
                &mut stage,
                Duration::from_secs(if options.quick { 5 } else { 20 }),
                &mut report,
            )
            .await?;
        }
        if options.wants(4) {
            let span = Duration::from_secs(if options.quick { 10 } else { 60 });
            let paces = match (options.paces.as_slice(), options.quick) {
                ([], true) => &end_to_end::QUICK_PACES,
                ([], false) => &end_to_end::PACES[..],
                (paces, _) => paces,
            };
            stage = end_to_end::sustained(stage, spans, paces, span, &mut report).await?;
        }
        if options.overload > 0 {
            overload_memory::run(
                &mut stage,
                Duration::from_secs(options.overload),
                &mut report,
            )
            .await?;
        }
    }
    if options.wants(3) {
        backlog_drain::drained(&options.drain(), &mut report).await?;
    }
    if options.wants(7) {
        let plan = stored_bytes::Plan::with_worker(options.binaries.join("trueup-worker"));
        stored_bytes::measured(&plan, &mut report).await?;
    }
    if options.wants(6) {
        backlog_drain::grown(&options.drain(), &mut report).await?;
    }
    let name = options.name.clone().unwrap_or_else(|| {
        let many = if options.gateways + options.workers > 2 {
            format!("-{}-gateways-{}-workers", options.gateways, options.workers)
        } else {
            String::new()
        };
        format!("{}{many}", if options.quick { "quick" } else { "load" })
    });
    let title = format!(
        "Load: {} gateway(s), {} worker(s)",
        options.gateways, options.workers
    );
    report.write(
        &options.out,
        &name,
        &title,
        &format!("{}\n\n{}", machine(), postgres().await?),
    )?;
    print_line(format_args!(
        "{:.0} s in all",
        began.elapsed().as_secs_f64()
    ));
    Ok(())
}

/// What it was measured on, without the machine's name.
fn machine() -> String {
    let cpus = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .map_or("", |l| l.trim_start_matches([' ', '\t', ':']));
    let now = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC");
    format!(
        "Measured {now} on {cpus} cores ({model}) that carry everything: the broker, Redis, Postgres, Trueup and the \
         load itself. Ratios are against a ceiling of the same minute."
    )
}

/// How the Postgres that it was measured on is set up, where that matters.
async fn postgres() -> anyhow::Result<String> {
    const SETTINGS: [&str; 7] = [
        "server_version",
        "shared_buffers",
        "max_wal_size",
        "checkpoint_timeout",
        "wal_compression",
        "autovacuum",
        "synchronous_commit",
    ];
    let database = TestDatabase::fresh().await;
    let client = database.client().await;
    let sql = "SELECT name, current_setting(name) FROM unnest($1::text[]) WITH ORDINALITY AS s (name, n) ORDER BY n";
    let rows = client.query(sql, &[&&SETTINGS[..]]).await?;
    let shown: Vec<String> = rows
        .iter()
        .map(|r| format!("{} {}", r.get::<_, &str>(0), r.get::<_, &str>(1)))
        .collect();
    Ok(format!("Postgres: {}.", shown.join(", ")))
}

fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Without it a run with many idle connections says what is missing.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
