// Against a process per service, two of persist side by side, on Postgres.

import { Platform } from "./harness/platform.js";
import { clientTests } from "./cases.js";

clientTests(() => Platform.separate());
