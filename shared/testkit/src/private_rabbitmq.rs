//! A RabbitMQ of a test's own, for what must not happen to the one that others use: memory alarms,
//! stops, kills. Ended with its guard. It needs the programs of the package `rabbitmq-server`.

use secrecy::SecretString;
use tokio::process::Command;
use trueup_queue::connection::BrokerConnection;
use trueup_services::rabbitmq::RabbitMq;

pub struct Rabbit {
    pub amqp_url: String,
    broker: RabbitMq,
}

impl Rabbit {
    /// Starts one and waits until it takes connections.
    pub async fn start() -> Rabbit {
        let starting = tokio::task::spawn_blocking(|| RabbitMq::start(1)).await;
        let broker = starting
            .expect("no panic")
            .unwrap_or_else(|e| panic!("tests need a RabbitMQ of their own: {e:#}"));
        Rabbit {
            amqp_url: broker.url(),
            broker,
        }
    }

    pub async fn session(&self) -> BrokerConnection {
        BrokerConnection::connect_to(&SecretString::from(self.amqp_url.as_str()), "test")
            .await
            .expect("it runs")
    }

    /// `rabbitmqctl` for this node.
    pub async fn ctl(&self, arguments: &[&str]) {
        let command = self.broker.ctl_command(arguments).expect("it runs");
        let output = Command::from(command)
            .output()
            .await
            .expect("rabbitmqctl starts");
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// From now on it takes nothing from publishers, as if its memory were used up.
    pub async fn memory_alarm(&self) {
        self.ctl(&["set_vm_memory_high_watermark", "absolute", "1"])
            .await;
    }

    pub async fn no_memory_alarm(&self) {
        self.ctl(&["set_vm_memory_high_watermark", "0.6"]).await;
    }

    /// No broker: its connections end, its ports are closed; what is on its disk stays.
    pub async fn stop(&self) {
        self.ctl(&["stop_app"]).await;
    }

    pub async fn start_again(&self) {
        self.ctl(&["start_app"]).await;
    }
}
