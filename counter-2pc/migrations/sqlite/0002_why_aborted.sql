-- ABORTED because it was prepared by hand and not decided in time. The binary before this one neither reads nor writes it.
ALTER TABLE ptxn ADD COLUMN expired INTEGER NOT NULL DEFAULT 0;
