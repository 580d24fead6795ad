-- A file with chats of format 1, as `sqlite3 .dump` writes it; `PRAGMA user_version` is 1.
BEGIN TRANSACTION;
CREATE TABLE chats (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        title TEXT NOT NULL,
        model TEXT NOT NULL,
        system TEXT,
        created REAL NOT NULL,
        updated REAL NOT NULL
    );
INSERT INTO "chats" VALUES(1,'The sky','org/model:INT4','be kind',1700000000.0,1700000420.0);
INSERT INTO "chats" VALUES(2,'a','org/model:INT8',NULL,1700000480.0,1700000720.0);
INSERT INTO "chats" VALUES(3,'first try','m',NULL,1700000780.0,1700001020.0);
INSERT INTO "chats" VALUES(4,'never used','m',NULL,1700001080.0,1700001080.0);
CREATE TABLE messages (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        chat_id INTEGER NOT NULL REFERENCES chats(id) ON DELETE CASCADE,
        turn INTEGER NOT NULL,
        role TEXT NOT NULL CHECK (role IN ('user', 'assistant')),
        content TEXT NOT NULL,
        finished INTEGER NOT NULL,
        created REAL NOT NULL
    );
INSERT INTO "messages" VALUES(1,1,1,'user','why is the sky blue?',1,1700000060.0);
INSERT INTO "messages" VALUES(2,1,2,'assistant','Rayleigh scattering.',1,1700000120.0);
INSERT INTO "messages" VALUES(3,1,3,'user','go on',1,1700000180.0);
INSERT INTO "messages" VALUES(4,1,4,'assistant','It scatters blue more.',1,1700000240.0);
INSERT INTO "messages" VALUES(5,1,4,'assistant','Blue light scatters more.',1,1700000300.0);
INSERT INTO "messages" VALUES(6,1,4,'assistant','Short waves scatter',0,1700000360.0);
INSERT INTO "messages" VALUES(7,2,1,'user','a',1,1700000540.0);
INSERT INTO "messages" VALUES(8,2,2,'assistant','b',1,1700000600.0);
INSERT INTO "messages" VALUES(9,2,3,'user','c',1,1700000660.0);
INSERT INTO "messages" VALUES(10,2,4,'assistant','',0,1700000720.0);
INSERT INTO "messages" VALUES(11,3,1,'user','first try',1,1700000840.0);
INSERT INTO "messages" VALUES(12,3,2,'assistant','',0,1700000900.0);
INSERT INTO "messages" VALUES(13,3,1,'user','second try',1,1700000960.0);
INSERT INTO "messages" VALUES(14,3,3,'assistant','an answer',1,1700001020.0);
CREATE INDEX messages_by_turn ON messages(chat_id, turn, id);
CREATE INDEX chats_by_time ON chats(updated);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('chats',4);
INSERT INTO "sqlite_sequence" VALUES('messages',14);
COMMIT;
