//! What recurs.

use notifyx_wire::grpc::events as wire;
use tonic::Code;

use super::{SECOND_US, code, open};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recurring_schedule_is_made_paused_run_by_hand_and_deleted() {
    use wire::new_schedule::Rule;
    let mut service = open().await;
    let ten_years = 3_653 * 86_400 * SECOND_US;
    let new = |rule| wire::NewSchedule {
        id: "daily".into(),
        category: "orders".into(),
        rule: Some(rule),
        ..wire::NewSchedule::default()
    };
    let made = service.schedules.create(new(Rule::EveryUs(ten_years))).await.unwrap().into_inner();
    let rule = made.rule.clone().unwrap();
    assert_eq!((rule.on_missed(), rule.rule), (wire::OnMissed::FireLast, Some(Rule::EveryUs(ten_years))));
    assert_eq!((rule.data, rule.priority), ("null".into(), Some(4)));
    assert_eq!(made.next_at_us, Some(made.created_at_us + ten_years));
    let again = service.schedules.create(new(Rule::EveryUs(ten_years))).await.unwrap().into_inner();
    assert_eq!(again.created_at_us, made.created_at_us, "the same schedule");
    let cron = wire::Cron { expression: "0 9 * * MON-FRI".into(), time_zone: "Europe/Berlin".into() };
    let other = service.schedules.create(new(Rule::Cron(cron.clone()))).await.unwrap_err();
    assert_eq!(code(&other), (Code::AlreadyExists, "schedule_mismatch".into()));
    let nowhere = wire::Cron { time_zone: "Mars/Olympus".into(), ..cron.clone() };
    for bad in [Rule::EveryUs(ten_years + 1), Rule::EveryUs(0), Rule::Cron(nowhere)] {
        let refused = service.schedules.create(new(bad)).await.unwrap_err();
        assert_eq!(code(&refused), (Code::InvalidArgument, "schedule_invalid".into()));
    }

    let id = || wire::ScheduleRef { id: "daily".into() };
    let paused = service.schedules.pause(id()).await.unwrap().into_inner();
    assert_eq!((paused.paused, paused.next_at_us), (true, None));
    let run = wire::RunNowRequest { id: "daily".into(), event_id: "by-hand".into() };
    let stored = service.schedules.run_now(run.clone()).await.unwrap().into_inner();
    let fired = stored.event.unwrap();
    assert_eq!((fired.schedule_id.as_deref(), fired.offset, stored.duplicate), (Some("daily"), Some(1), false));
    assert!(service.schedules.run_now(run).await.unwrap().into_inner().duplicate);
    assert!(!service.schedules.resume(id()).await.unwrap().into_inner().paused);

    let daily = wire::NewSchedule { id: "cron".into(), ..new(Rule::Cron(cron.clone())) };
    let daily = service.schedules.create(daily).await.unwrap().into_inner().rule.unwrap();
    assert_eq!(daily.rule, Some(Rule::Cron(cron)));
    let page = wire::ListSchedulesRequest { limit: 1, ..wire::ListSchedulesRequest::default() };
    let first = service.schedules.list(page.clone()).await.unwrap().into_inner();
    assert_eq!((first.schedules.len(), first.next.as_str()), (1, "cron"));
    let page = wire::ListSchedulesRequest { cursor: first.next, limit: 10, ..page };
    let last = service.schedules.list(page).await.unwrap().into_inner();
    assert_eq!((last.schedules[0].rule.as_ref().unwrap().id.as_str(), last.next.as_str()), ("daily", ""));
    service.schedules.delete(id()).await.unwrap();
    let gone = service.schedules.get(id()).await.unwrap_err();
    assert_eq!(code(&gone), (Code::NotFound, "schedule_not_found".into()));
    service.stop().await;
}
