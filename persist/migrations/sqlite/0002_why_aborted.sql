-- Why a transaction is ABORTED, to be said again to whoever asks again. The binary before this one reads and writes neither column.

-- By hand, and not decided in time.
ALTER TABLE ptxn ADD COLUMN expired INTEGER NOT NULL DEFAULT 0;
-- A business "no": JSON with its code and detail.
ALTER TABLE ptxn ADD COLUMN refusal TEXT;
