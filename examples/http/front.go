package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq"
)

// front answers requests. It never waits for a handler.
type front struct {
	pool   *pgxpool.Pool
	client *sqlq.Client
}

func (f front) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /orders", f.post)
	mux.HandleFunc("GET /orders/{id}", f.get)
	return mux
}

// post stores the order and sends the command in one transaction: a client that gets a 202 can rely on it.
func (f front) post(w http.ResponseWriter, r *http.Request) {
	var wanted struct{ Item string }
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&wanted); err != nil || wanted.Item == "" {
		http.Error(w, `want {"item": "…"}`, http.StatusBadRequest)
		return
	}
	o := order{Item: wanted.Item, State: "accepted"}
	err := pgx.BeginFunc(r.Context(), f.pool, func(tx pgx.Tx) error {
		err := tx.QueryRow(r.Context(), `INSERT INTO shop_order (item, state) VALUES ($1, $2) RETURNING id`, o.Item, o.State).Scan(&o.ID)
		if err != nil {
			return err
		}
		return f.client.SendTx(r.Context(), tx, PlaceOrder{o.ID})
	})
	if err != nil {
		fail(w, r, err)
		return
	}
	w.Header().Set("Location", fmt.Sprintf("/orders/%d", o.ID))
	answer(w, http.StatusAccepted, o)
}

func (f front) get(w http.ResponseWriter, r *http.Request) {
	rows, _ := f.pool.Query(r.Context(), `SELECT id, item, state FROM shop_order WHERE id::text = $1`, r.PathValue("id"))
	o, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[order]) // returns the query's error, too
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		http.NotFound(w, r)
	case err != nil:
		fail(w, r, err)
	default:
		answer(w, http.StatusOK, o)
	}
}

func answer(w http.ResponseWriter, status int, o order) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(o) // the client may have gone
}

func fail(w http.ResponseWriter, r *http.Request, err error) {
	slog.ErrorContext(r.Context(), "request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	http.Error(w, "try again later", http.StatusServiceUnavailable)
}
