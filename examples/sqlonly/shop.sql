-- A business table whose trigger sends. No program has to remember to do it: whoever takes pieces from the stock, a service, a
-- script or somebody in psql, the command is part of the same transaction.

CREATE TABLE stock (
    sku     text PRIMARY KEY,
    pieces  int NOT NULL CHECK (pieces >= 0),
    minimum int NOT NULL
);

CREATE FUNCTION reorder() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM sqlq.send('purchasing', 'purchasing.Reorder',
        json_build_object('sku', NEW.sku, 'pieces', 2 * NEW.minimum - NEW.pieces));
    RETURN NULL;
END $$;

CREATE TRIGGER reorder AFTER UPDATE ON stock FOR EACH ROW
    WHEN (OLD.pieces >= OLD.minimum AND NEW.pieces < NEW.minimum)
    EXECUTE FUNCTION reorder();

SELECT sqlq.create_queue('purchasing');

INSERT INTO stock VALUES ('cup', 80, 50), ('teapot', 12, 10);
