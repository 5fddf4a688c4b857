-- What the candidates of a campaign are; until now the beginning of its settings said so.
-- Which failures were not the candidates' fault; until now a list in the event `gave up`.
PRAGMA user_version = 5;

ALTER TABLE campaigns ADD COLUMN kind TEXT NOT NULL DEFAULT 'stacks' CHECK (kind IN ('stacks', 'black box'));
UPDATE campaigns SET kind = 'black box'
    WHERE instr(config_toml, '# Made by `deltafront optimize`.' || char(10)) = 1;

-- The run that ended gave up because of its failure, among others: the next one tries it again.
ALTER TABLE candidates ADD COLUMN given_up INTEGER NOT NULL DEFAULT 0 CHECK (given_up IN (0, 1));
UPDATE candidates SET given_up = 1
    WHERE state = 'failed'
    AND 'failed' = (SELECT r.end FROM runs r WHERE r.campaign_id = candidates.campaign_id AND r.end IS NOT NULL
        ORDER BY r.id DESC LIMIT 1)
    AND EXISTS (SELECT 1 FROM events e WHERE e.campaign_id = candidates.campaign_id AND e.kind = 'gave up'
        AND e.seq = (SELECT max(l.seq) FROM events l WHERE l.campaign_id = e.campaign_id
            AND l.kind IN ('gave up', 'start'))
        AND instr(',' || replace(e.body, ' ', ',') || ',', ',' || candidates.number || ',') > 0);
