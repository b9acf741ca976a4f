// Command rival projects "run started" events into SQLite, as the worker does in normal operation.
//
// It uses nats.go's jetstream package and mattn/go-sqlite3. The statements and settings are those of
// the worker: they are read from sql/sqlite/queries, relative to the root of the checkout.
package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	_ "github.com/mattn/go-sqlite3"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	stream   = "EVENTS"
	consumer = "backend_events_projector"
	bucket   = "jobs"

	// Messages in one transaction at most. A message never waits for others to arrive.
	batchSize = 1000
	// Messages that the client requests ahead, so that the next batch is there after a commit.
	pullMaxMessages = 4000

	leastSlack = 120 * time.Second
	// Sums with a longer timeout could overflow time.Duration.
	longestTimeout = 100 * 365 * 24 * time.Hour
)

func main() {
	server := flag.String("nats", nats.DefaultURL, "URL of the NATS server")
	database := flag.String("database", "", "path of the database file")
	queries := flag.String("queries", "sql/sqlite/queries", "folder with the SQL statements")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, *server, *database, *queries); err != nil {
		log.Fatal(err)
	}
}

// run projects until the context is done. It returns an error if a write fails or the consumer is
// deleted: the messages that were not acked are delivered again.
func run(ctx context.Context, server, database, queries string) error {
	store, err := openStore(database, queries)
	if err != nil {
		return fmt.Errorf("open %s: %w", database, err)
	}
	defer store.Close()

	nc, err := nats.Connect(server, nats.MaxReconnects(-1))
	if err != nil {
		return fmt.Errorf("connect to %s: %w", server, err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	timeouts, err := readTimeouts(ctx, js)
	if err != nil {
		return fmt.Errorf("read bucket %s: %w", bucket, err)
	}
	durable, err := js.Consumer(ctx, stream, consumer)
	if err != nil {
		return fmt.Errorf("find consumer %s: %w", consumer, err)
	}

	// Messages are decoded on the goroutine of the subscription while this one writes.
	rows := make(chan row, batchSize)
	receive := func(message jetstream.Msg) {
		decoded, err := decode(message, timeouts)
		if err != nil {
			log.Printf("dropped a malformed message on %s: %v", message.Subject(), err)
			logError("terminate", message.Term())
			return
		}
		select {
		case rows <- decoded:
		case <-ctx.Done():
		}
	}
	consuming, err := durable.Consume(
		receive,
		jetstream.PullMaxMessages(pullMaxMessages),
		jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) {
			logError("consume", err)
		}),
	)
	if err != nil {
		return fmt.Errorf("consume from %s: %w", consumer, err)
	}
	defer consuming.Stop()

	batch := make([]row, 0, batchSize)
	for {
		select {
		case <-ctx.Done():
			return nc.Flush()
		case <-consuming.Closed():
			return errors.New("the consumer was deleted")
		case first := <-rows:
			batch = collect(append(batch[:0], first), rows)
		}
		if err := store.write(batch); err != nil {
			return fmt.Errorf("write %d rows: %w", len(batch), err)
		}
		for _, written := range batch {
			logError("ack", written.message.Ack())
		}
	}
}

// collect adds the rows that have arrived already, up to the size of a batch.
func collect(batch []row, rows <-chan row) []row {
	for len(batch) < batchSize {
		select {
		case next := <-rows:
			batch = append(batch, next)
		default:
			return batch
		}
	}
	return batch
}

func logError(action string, err error) {
	if err != nil {
		log.Printf("%s: %v", action, err)
	}
}

// --- events ---

type eventStarted struct {
	ResultID   string `json:"result_id"`
	RequestID  string `json:"request_id"`
	ExecID     string `json:"exec_id"`
	PCID       string `json:"pc_id"`
	StartedAt  string `json:"started_at"`
	ManifestID string `json:"manifest_id"`
	Version    string `json:"version"`
}

// row holds the values of one run, in the order of the statement insert_run.
type row struct {
	message jetstream.Msg
	execID  string
	values  []any
}

func decode(message jetstream.Msg, timeouts map[string]time.Duration) (row, error) {
	var event eventStarted
	if err := json.Unmarshal(message.Data(), &event); err != nil {
		return row{}, err
	}
	if event.ResultID == "" {
		return row{}, errors.New("result_id is missing")
	}
	// A space may stand for the T.
	startedAt, err := time.Parse(time.RFC3339, strings.Replace(event.StartedAt, " ", "T", 1))
	if err != nil {
		return row{}, err
	}
	metadata, err := message.Metadata()
	if err != nil {
		return row{}, err
	}
	recordedAt := metadata.Timestamp
	var expiresAt any // NULL if the manifest is unknown
	if timeout, known := timeouts[event.ManifestID]; known {
		expiresAt = storedText(recordedAt.Add(timeout + max(leastSlack, timeout/2)))
	}
	return row{message, event.ExecID, []any{
		event.ResultID, event.RequestID, event.ExecID, event.PCID, storedText(startedAt),
		event.Version, event.ManifestID, storedText(recordedAt), expiresAt,
	}}, nil
}

// storedText formats a time in UTC with 0, 3, 6 or 9 fractional digits, the fewest that are exact.
func storedText(t time.Time) string {
	layout := "2006-01-02T15:04:05.000000000-07:00"
	switch nanoseconds := t.Nanosecond(); {
	case nanoseconds == 0:
		layout = "2006-01-02T15:04:05-07:00"
	case nanoseconds%1_000_000 == 0:
		layout = "2006-01-02T15:04:05.000-07:00"
	case nanoseconds%1_000 == 0:
		layout = "2006-01-02T15:04:05.000000-07:00"
	}
	return t.UTC().Format(layout)
}

// --- manifests ---

// readTimeouts returns the timeout of each manifest whose timeout can be read.
func readTimeouts(ctx context.Context, js jetstream.JetStream) (map[string]time.Duration, error) {
	jobs, err := js.KeyValue(ctx, bucket)
	if err != nil {
		return nil, err
	}
	watcher, err := jobs.WatchAll(ctx, jetstream.IgnoreDeletes())
	if err != nil {
		return nil, err
	}
	defer watcher.Stop()
	timeouts := map[string]time.Duration{}
	for entry := range watcher.Updates() {
		if entry == nil { // all present values have been sent
			return timeouts, nil
		}
		var manifest struct {
			Execute struct {
				Timeout string `json:"timeout"`
			} `json:"execute"`
		}
		err := json.Unmarshal(entry.Value(), &manifest)
		if err == nil {
			timeouts[entry.Key()], err = parseTimeout(manifest.Execute.Timeout)
		}
		if err != nil {
			delete(timeouts, entry.Key())
			log.Printf("manifest %s has no usable timeout: %v", entry.Key(), err)
		}
	}
	return nil, errors.New("the watch ended early")
}

// parseTimeout reads a text such as "2h 30m". Units longer than an hour are unknown to it.
func parseTimeout(text string) (time.Duration, error) {
	timeout, err := time.ParseDuration(strings.Join(strings.Fields(text), ""))
	if err == nil && (timeout < 0 || timeout > longestTimeout) {
		err = fmt.Errorf("%q is out of range", text)
	}
	return timeout, err
}

// --- database ---

// store is one connection with its prepared statements. They run without a context: a batch that has
// begun is finished, and the driver needs no goroutine to interrupt a statement.
type store struct {
	*sql.DB
	begin, insert, promote, commit *sql.Stmt
}

func openStore(path, queries string) (*store, error) {
	texts, err := readStatements(queries)
	if err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite3", "file:"+path+"?mode=rw")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1) // settings and transactions belong to a connection
	// Without the first one, the driver's default for a write-ahead log would be NORMAL.
	for _, name := range []string{
		"set_synchronous", "set_cache_size", "set_checkpoint_interval", "set_journal_size_limit",
	} {
		setting, err := prepare(db, texts, name)
		if err == nil {
			_, err = setting.Exec()
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	opened := &store{DB: db}
	for name, prepared := range map[string]**sql.Stmt{
		"begin_write":       &opened.begin,
		"insert_run":        &opened.insert,
		"promote_execution": &opened.promote,
		"commit":            &opened.commit,
	} {
		if *prepared, err = prepare(db, texts, name); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return opened, nil
}

func prepare(db *sql.DB, texts map[string]string, name string) (*sql.Stmt, error) {
	text, found := texts[name]
	if !found {
		return nil, errors.New("no file has this statement")
	}
	return db.Prepare(text)
}

// write inserts the rows and promotes each of their executions once, in one transaction. After an
// error the transaction is undone when the connection is closed.
func (s *store) write(batch []row) error {
	if _, err := s.begin.Exec(); err != nil {
		return err
	}
	execIDs := map[string]struct{}{}
	for _, each := range batch {
		if _, err := s.insert.Exec(each.values...); err != nil {
			return err
		}
		execIDs[each.execID] = struct{}{}
	}
	for execID := range execIDs {
		if _, err := s.promote.Exec(execID); err != nil {
			return err
		}
	}
	_, err := s.commit.Exec()
	return err
}

var heading = regexp.MustCompile(`(?m)^-- name: (\w+)\n`)

// readStatements returns the text of each statement in the files of a folder, by its name.
func readStatements(folder string) (map[string]string, error) {
	paths, err := filepath.Glob(filepath.Join(folder, "*.sql"))
	if err != nil {
		return nil, err
	}
	texts := map[string]string{}
	for _, path := range paths {
		file, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		content := string(file)
		found := heading.FindAllStringSubmatchIndex(content, -1)
		for i, at := range found {
			end := len(content)
			if i+1 < len(found) {
				end = found[i+1][0]
			}
			texts[content[at[2]:at[3]]] = content[at[1]:end]
		}
	}
	return texts, nil
}
