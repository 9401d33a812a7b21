-- Grows when another replica changes what this one has claimed, or what stands beside it. While it stands
-- still, what a replica knows of its own remediations is what is there.
ALTER TABLE replicas ADD COLUMN touched BIGINT NOT NULL DEFAULT 0;
