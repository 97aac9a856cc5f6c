//! How near each limit is, as an operator sees it.

use super::Scene;

impl Scene {
    /// What is used of a limit now, and the limit.
    async fn used(&self, limit: &str) -> (Option<u64>, Option<u64>) {
        let labels = format!("limit=\"{limit}\"");
        let used = self.sample("current", &labels).await;
        (used, self.sample("max", &labels).await)
    }
}

#[tokio::test]
async fn how_near_each_limit_is_stands_beside_it() {
    let limits = "connections = 50\nhandshakes = 20\nper_source = 10\naccept_rate = { per_second = 1, burst = 30 }\nper_route = 7";
    let scene = Scene::with(limits, "max_connections = 4").await;
    let mut tunnels = scene.open(2).await;
    for _ in 0..3 {
        tunnels.push(scene.tunnel("127.0.0.2", "b").await.unwrap());
    }
    assert_eq!(scene.used("connections").await, (Some(5), Some(50)));
    assert_eq!(scene.used("handshakes").await, (Some(0), Some(20)));
    assert_eq!(scene.used("per_source").await, (Some(3), Some(10)));
    // Two of four are more than three of seven.
    assert_eq!(scene.used("per_route").await, (Some(2), Some(4)));
    let (used, burst) = scene.used("accept_rate").await;
    assert!(used.is_some_and(|used| (1..=3).contains(&used)), "{used:?}");
    assert_eq!(burst, Some(30));
    // A limit that is off has none, and one that is changed is the new one.
    let limits = "connections = 60\nper_source = \"off\"\nper_route = 7";
    scene.reload(limits).await.unwrap();
    assert_eq!(scene.used("connections").await, (Some(5), Some(60)));
    assert_eq!(scene.used("per_source").await, (Some(3), None));
    assert_eq!(scene.used("per_route").await, (Some(3), Some(7)));
    assert_eq!(scene.used("idle_timeout").await, (None, None));
}
