package devpg

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// Crash kills the server and all its processes at once, like a crash of the machine, and returns when they have gone.
// The data stays, for Restart; Stop removes it. If the server has died already, that is not an error.
//
// A server that was not started with Options.Durable may lose what it has just committed, since synchronous_commit
// is off there, and may be unable to start again, since full_page_writes is off too.
//
// The context has no effect yet: a crash takes milliseconds.
func (s *Server) Crash(ctx context.Context) error {
	s.change.Lock()
	defer s.change.Unlock()
	if err := s.checkOwned("crashed"); err != nil {
		return err
	}
	return s.crash()
}

// crash is called with change held.
func (s *Server) crash() error {
	if s.keeper == nil { // before the crash: afterwards somebody must be responsible for the folder at every moment
		log, err := s.openLog()
		if err != nil {
			return err
		}
		defer log.Close()
		if s.keeper, err = newRunner(s.folder, s.as, log).keep(); err != nil {
			return err
		}
	}
	p := s.process.Load()
	if err := p.crash(p.pid); err != nil {
		return fmt.Errorf("crash the server: %w", err)
	}
	p.release()
	return nil
}

// Restart starts the server again after Crash, or after it has died by itself, on the same data and at the same address.
// A running server is stopped first, as by SIGINT. Restart returns once the server accepts connections, that is, once it has
// recovered. If it fails, the data stays, and Restart may be called again; the error quotes the server's log.
func (s *Server) Restart(ctx context.Context) error {
	s.change.Lock()
	defer s.change.Unlock()
	if err := s.checkOwned("restarted"); err != nil {
		return err
	}
	p := s.process.Load()
	p.ask()
	p.ended(stopWithin)
	if err := s.crash(); err != nil { // whatever still runs; from here on the keeper is responsible for the folder
		return err
	}
	log, err := s.openLog()
	if err != nil {
		return err
	}
	defer log.Close()
	if err := s.run(ctx, newRunner(s.folder, s.as, log)); err != nil {
		return err
	}
	s.release()
	return nil
}

// release ends the keeper. The folder stays.
func (s *Server) release() {
	if s.keeper != nil {
		s.keeper.abandon()
		s.keeper = nil
	}
}

func (s *Server) openLog() (*os.File, error) {
	log, err := s.folder.root.OpenFile("log", os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("open the server's log: %w", err)
	}
	return log, nil
}

// checkOwned returns an error if the caller may not do this to the server.
func (s *Server) checkOwned(done string) error {
	switch {
	case s.box != nil:
		return fmt.Errorf("the server runs in a container, and cannot be %s there: this needs PostgreSQL's programs on this machine; "+
			"install them, or set SQLQ_POSTGRES_BIN", done)
	case s.folder == nil:
		return fmt.Errorf("the server was given by URL, and cannot be %s", done)
	case s.stopped:
		return errors.New("the server was stopped, and its data is gone")
	}
	return nil
}
