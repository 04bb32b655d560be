// Against `notifyx up`: everything in one process, on SQLite.

import { Platform } from "./harness/platform.js";
import { clientTests } from "./cases.js";

clientTests(() => Platform.up());
