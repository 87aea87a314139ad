//! How long the pure parts take: `cargo bench -p trueup-domain --bench pure`.

mod cases;

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use trueup_domain::report::{PayoutUnit, ReadSettings};
use trueup_domain::{field_aliases, money, phone, reading};
use trueup_event::envelope;
use trueup_event::raw_event::{Envelope, RawEvent};

fn reading(c: &mut Criterion) {
    let settings = ReadSettings::default();
    let mut group = c.benchmark_group("read a report");
    for (name, request) in [
        ("json", cases::json()),
        ("form", cases::form()),
        ("query", cases::query()),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| reading::read_request(black_box(&request), &settings))
        });
    }
    group.finish();
}

fn parts(c: &mut Criterion) {
    c.bench_function("alias lookup", |b| {
        b.iter(|| field_aliases::find_alias(black_box("Caller_ID")))
    });
    c.bench_function("money", |b| {
        b.iter(|| money::parse_cents(black_box("$1,250.00"), false, PayoutUnit::Dollars, "USD"));
    });
    c.bench_function("phone, NANP", |b| {
        b.iter(|| phone::normalise_caller(black_box("(305) 555-1234"), "US"))
    });
    c.bench_function("phone, foreign", |b| {
        b.iter(|| phone::normalise_caller(black_box("+4915123456789"), "US"))
    });
}

fn batch(c: &mut Criterion) {
    let batch = cases::Batch::new();
    c.bench_function("decide a batch of 200", |b| {
        b.iter_batched(
            || batch.books(),
            |mut books| batch.decide(&mut books),
            BatchSize::SmallInput,
        );
    });
    let event = RawEvent {
        id: uuid::Uuid::from_u128(1),
        received_at: jiff::Timestamp::UNIX_EPOCH,
        account_id: uuid::Uuid::from_u128(2),
        webhook_id: uuid::Uuid::from_u128(3),
        position: 0,
        source_ip: std::net::IpAddr::from([192, 0, 2, 1]),
        request: Some(cases::json()),
        refusal: None,
    };
    let message = envelope::encode_envelope(&Envelope::from_events(vec![event; 100]));
    c.bench_function("decode an envelope of 100", |b| {
        b.iter(|| envelope::decode_envelope(black_box(&message)))
    });
}

criterion_group!(benches, reading, parts, batch);
criterion_main!(benches);
