"""How fast the shards of a request go, and how long they will still take. Pure.

From completed indexes and the plan alone: a watch of Pods would cost more than it tells. A
shard counts when it is complete, so the rate is that of whole shards since `since`.
"""

from __future__ import annotations

import math
from datetime import datetime

from imageprocessing_operator.status import Images, Progress


def reckon(before: Progress | None, images: Images, processed: int, now: datetime) -> Progress:
    """What is known once `processed` images are done; `images` is what was known before.

    The first call, when shards begin or are resumed, is what later ones reckon from. Without
    a new count nothing changes, or each look would be a write.
    """
    if before is None:
        return Progress(since=now, processed_before=processed)
    done = processed - before.processed_before
    if processed == images.processed or done <= 0:
        return before
    seconds_an_image = max(1.0, (now - before.since).total_seconds()) / done
    left = math.ceil((images.total - processed) * seconds_an_image)
    return Progress(
        since=before.since,
        processed_before=before.processed_before,
        images_per_minute=round(60 / seconds_an_image),
        time_left=_duration(left) if left > 0 else None,
    )


def _duration(seconds: int) -> str:
    """As kubectl writes ages: two units where the first is small."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s"
    if hours < 3:
        return f"{minutes}m"
    if hours < 48:
        return f"{hours}h{minutes % 60}m" if hours < 8 else f"{hours}h"
    return f"{days}d"
