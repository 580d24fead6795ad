"""The tables of the file with the chats, version by version."""

from collections.abc import Sequence

MIGRATIONS: Sequence[str] = (
    """
    CREATE TABLE chats (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        title TEXT NOT NULL,
        model TEXT NOT NULL,
        system TEXT,
        created REAL NOT NULL,
        updated REAL NOT NULL
    );
    CREATE TABLE messages (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        chat_id INTEGER NOT NULL REFERENCES chats(id) ON DELETE CASCADE,
        turn INTEGER NOT NULL,
        role TEXT NOT NULL CHECK (role IN ('user', 'assistant')),
        content TEXT NOT NULL,
        finished INTEGER NOT NULL,
        created REAL NOT NULL
    );
    CREATE INDEX messages_by_turn ON messages(chat_id, turn, id);
    CREATE INDEX chats_by_time ON chats(updated);
    """,
    # Messages become a tree. `system` is there where another system prompt came into force ('' is none), `tokens` of
    # an answer that was cut off, `leaf` is the last message of the branch that is shown.
    """
    CREATE TABLE tree (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        chat_id INTEGER NOT NULL REFERENCES chats(id) ON DELETE CASCADE,
        parent INTEGER REFERENCES tree(id) ON DELETE CASCADE,
        role TEXT NOT NULL CHECK (role IN ('user', 'assistant')),
        content TEXT NOT NULL,
        ending TEXT NOT NULL,
        model TEXT NOT NULL DEFAULT '',
        system TEXT,
        tokens BLOB,
        figures TEXT,
        created REAL NOT NULL
    );
    INSERT INTO tree (id, chat_id, parent, role, content, ending, system, created)
    SELECT id, chat_id,
        (SELECT max(before.id) FROM messages AS before
         WHERE before.chat_id = one.chat_id AND before.id < one.id AND before.content != '' AND before.turn =
             (SELECT max(turn) FROM messages AS earlier
              WHERE earlier.chat_id = one.chat_id AND earlier.turn < one.turn AND earlier.id < one.id
                  AND earlier.content != '')) AS above,
        role, content, CASE WHEN finished THEN 'stop' ELSE 'writing' END, NULL, created
    FROM messages AS one WHERE content != '' ORDER BY id;
    UPDATE tree SET system = (SELECT coalesce(system, '') FROM chats WHERE id = chat_id) WHERE parent IS NULL;
    ALTER TABLE chats ADD COLUMN leaf INTEGER;
    UPDATE chats SET leaf = (
        SELECT id FROM messages WHERE chat_id = chats.id AND content != '' ORDER BY turn DESC, messages.id DESC LIMIT 1
    );
    DROP TABLE messages;
    ALTER TABLE tree RENAME TO messages;
    CREATE INDEX messages_by_parent ON messages(chat_id, parent, id);
    CREATE INDEX children ON messages(parent);
    """,
    # The form that answers keep, as `Grammar.to_json` writes it.
    """
    ALTER TABLE chats ADD COLUMN form TEXT
    """,
)
"""SQL that leads from each version of the file (PRAGMA user_version) to the next. Only ever appended to."""
