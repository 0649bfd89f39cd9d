"""Metrics that are read from the server's objects at each scrape."""

from collections import Counter
from collections.abc import Sequence

from homeserver.background_jobs.job_runner import JobRunner
from homeserver.concurrency.periodic import PeriodicTask
from homeserver.observability.metrics import Metrics
from homeserver.push.pushers.pusher_queues import PusherQueues
from homeserver.storage.database.database import Database
from homeserver.streams.durable_readers import DurableReaders
from homeserver.wiring.federated_rooms import FederatedRooms
from homeserver.wiring.room_core import RoomCore
from homeserver.wiring.rooms import RoomServices
from homeserver.wiring.stream import Stream
from homeserver.wiring.sync import Sync


def watch(
    metrics: Metrics,
    db: Database,
    readers: DurableReaders,
    room_core: RoomCore,
    rooms: RoomServices,
    sync: Sync,
    stream: Stream,
) -> None:
    """Register the metrics of one server."""
    registry = room_core.registry
    metrics.gauges(
        "reader_behind_seconds",
        "Time since which the log has entries that a reader has not handled.",
        "reader",
        lambda: {reader.name: reader.behind_seconds for reader in readers},
    )
    metrics.counter(
        "events", "Events that entered rooms since the start.", lambda: registry.events_appended
    )
    metrics.gauge(
        "sync_requests_waiting",
        "Long polls and WebSockets waiting for changes.",
        lambda: sync.change_queues.waiting,
    )
    metrics.gauge("websockets", "Open WebSockets.", lambda: len(stream.connections))
    metrics.gauge("rooms_loaded", "Rooms in memory.", lambda: len(registry))
    metrics.counter(
        "room_cache_misses", "Rooms that were read from the database.", lambda: registry.loads
    )
    metrics.gauge(
        "users_with_change_queue",
        "Users whose changes are queued in memory.",
        lambda: len(sync.change_queues),
    )
    metrics.gauge("database_connections_in_use", "Database connections in use.", lambda: db.in_use)
    metrics.gauge(
        "database_queries_waiting", "Queries waiting for a database connection.", lambda: db.waiting
    )
    metrics.counter(
        "database_connections_lost", "Database connections that broke.", lambda: db.losses
    )
    collector = rooms.state_node_collector
    metrics.counter(
        "state_node_collection_steps",
        "Steps of the garbage collection of state nodes.",
        lambda: collector.steps,
    )
    metrics.counter(
        "state_nodes_marked",
        "State nodes that the garbage collection found in use.",
        lambda: collector.marked,
    )
    metrics.counter(
        "state_nodes_removed",
        "State nodes that the garbage collection removed.",
        lambda: collector.removed,
    )


def watch_federation(metrics: Metrics, federated_rooms: FederatedRooms) -> None:
    """Register the metrics of what is sent to other servers."""
    metrics.gauge(
        "destinations_with_waiting_edus",
        "Servers that have not accepted all messages to devices and device lists yet.",
        lambda: federated_rooms.destinations_with_edus,
    )


def watch_push(metrics: Metrics, queues: PusherQueues) -> None:
    """Register the metrics of what is sent to push gateways."""
    gateways = queues.gateways
    metrics.counter(
        "pushes_accepted", "Notifications that push gateways accepted.", lambda: gateways.accepted
    )
    metrics.counter(
        "pushes_failed",
        "Requests to push gateways that failed; they are repeated.",
        lambda: gateways.failed,
    )
    metrics.gauge(
        "pushers_behind",
        "Pushers whose gateways do not accept what they have to send.",
        lambda: queues.behind,
    )


def watch_periodic_tasks(metrics: Metrics, tasks: Sequence[PeriodicTask]) -> None:
    """Register the metrics of what is done at intervals."""
    metrics.gauges(
        "periodic_task_last_run_timestamp_seconds",
        "When the last run of a periodic task ended.",
        "task",
        lambda: {each.name: each.last_run_at for each in tasks if each.last_run_at is not None},
    )
    metrics.gauges(
        "periodic_task_next_run_timestamp_seconds",
        "When the next run of a periodic task is due.",
        "task",
        lambda: {each.name: each.next_run_at for each in tasks if each.next_run_at is not None},
    )
    metrics.gauges(
        "periodic_task_failures",
        "Runs of a periodic task that failed since the last success; the log says why.",
        "task",
        lambda: {each.name: each.failures for each in tasks},
    )


def watch_jobs(metrics: Metrics, runner: JobRunner) -> None:
    """Register the metrics of background jobs."""
    metrics.gauges(
        "jobs",
        "Background jobs by state, of the unfinished and the newest ones.",
        "state",
        lambda: {
            state: Counter(job.state for job in runner.watched)[state]
            for state in ("waiting", "running", "failed")
        },
    )
    metrics.gauges(
        "job_progress",
        "Share of its work that a running background job has done, 0 to 1.",
        "job",
        lambda: {
            f"{job.kind} {job.job_id}": min(job.done / job.total, 1.0)
            for job in runner.watched
            if job.state == "running" and job.total
        },
    )
    metrics.counter("job_steps", "Steps of background jobs since the start.", lambda: runner.steps)
