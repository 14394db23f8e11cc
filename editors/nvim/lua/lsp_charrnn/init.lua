-- Accepts an inline suggestion exactly as it is shown, or not at all. Needs Neovim 0.12. Asking and showing are Neovim's own.
local M = {}

--- Neovim 0.12 keeps a suggestion for the text it was made for until the next answer comes, and meanwhile shows it less one
--- character per character typed, matching or not. So: where the text up to the cursor matches, replace all of that (our server's
--- ranges end at the cursor); else insert nothing.
---@param item vim.lsp.inline_completion.Item
---@return vim.lsp.inline_completion.Item?
local function as_shown(item)
  local client = vim.lsp.get_client_by_id(item.client_id)
  if not client or client.name ~= 'lsp_charrnn' or type(item.insert_text) ~= 'string' or not item.range then
    return item -- another server's, whose ranges may mean something else
  end
  local cursor = vim.api.nvim_win_get_cursor(0)
  local row, col = cursor[1] - 1, cursor[2]
  local start_row, start_col = item.range:to_extmark()
  local ok, typed = pcall(vim.api.nvim_buf_get_text, 0, start_row, start_col, row, col, {})
  if not ok or not vim.startswith(item.insert_text, table.concat(typed, '\n')) then
    return nil -- the cursor went before the suggestion, or something else was typed
  end
  item.range = vim.range.extmark(item.range.buf, start_row, start_col, row, col)
  return item
end

--- Take the suggestion that is shown, if there is one. May be called from an `expr` mapping.
---@return boolean taken
function M.accept()
  return vim.lsp.inline_completion ~= nil and vim.lsp.inline_completion.get({ on_accept = as_shown })
end

return M
